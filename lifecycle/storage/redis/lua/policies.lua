-- Functions of `lifecycle.core.policies`, since a script cannot call Python while it runs; tests hold them equal.
-- Names that start with a dollar are filled in from the table.
--
-- A revocation is {until or nil, once}; a row has the fields that `load_row` in moves.lua returns. The verdict in a row
-- is text, as `lifecycle.core.step.verdict_text` writes it; false: none yet; nil: the task is no step of a workflow.

local function holds(revocation, at)
  return revocation[1] == nil or at < revocation[1]
end

-- The trigger, the moment and the cause of a row's verdict; nil if there is none.
local function verdict_of(row)
  if type(row.verdict) ~= "string" then return nil end
  local trigger, at, cause = string.match(row.verdict, "^(%S+) (%S+) (.*)")
  at = tonumber(at)
  if at then return trigger, at, cause end
end

local function verdict_text(trigger, at, cause)
  return trigger .. " " .. string.format("%.17g", at) .. " " .. cause
end

local function revoked_when_due(row, own, now)
  if own == nil then return false end
  if row.state == "$PENDING" and not row.verdict then return own[1] == nil end
  return holds(own, (row.eta and row.eta > now) and row.eta or now)
end

-- The moment from which a waiting task is not started any more, or nil.
local function expiry(row)
  if row.expires_after and not row.expires and row.attempt == 0 and (row.awaits or 0) > 0 then
    local _, at = verdict_of(row)
    return at and math.max(at, row.eta or 0) + row.expires_after
  end
  if row.expires_after and row.attempt > 0 and (row.expires or (row.awaits or 0) > 0) then
    return row.eta and row.eta + row.expires_after
  end
  return row.expires
end

-- The rank of a waiting task, or nil and the time when the task gets one.
local function visibility(row, own, now)
  if revoked_when_due(row, own, now) then
    return $REVOKED_RANK, nil
  elseif row.state == "$QUEUED" then
    return row.priority, nil
  elseif row.state == "$PENDING" and row.verdict then
    return verdict_of(row) == "$SKIP" and $REVOKED_RANK or row.priority, nil
  end
  local due = math.huge
  if row.state ~= "$PENDING" and row.eta and row.eta < due then due = row.eta end
  local expires = expiry(row)
  if expires and expires < due then due = expires end
  return nil, due
end

-- The trigger that a claim applies to a waiting task; nil: the task waits on.
local function admit(row, own, of_function, now)
  local expires = expiry(row)
  if expires and expires <= now then return "$EXPIRE" end
  if revoked_when_due(row, own, now) then return "$REVOKE" end
  if row.state == "$PENDING" then
    if not row.verdict then return nil end
    if verdict_of(row) == "$SKIP" then return "$SKIP" end
  end
  if row.eta and row.eta > now then
    return row.state ~= "$SCHEDULED" and "$SCHEDULE" or nil
  end
  if of_function ~= nil and holds(of_function, now) then return "$REVOKE" end
  return "$START"
end

-- Seconds that a task waits after its last of so many interruptions.
local function interruption_pause(interruptions)
  return interruptions < 2 and 0 or 2 ^ math.min(interruptions - 1, 6)
end

-- The path of a running task whose worker is gone.
local function recovery_path(row, max_interruptions)
  if row.canceling then return {"$CANCEL"} end
  if row.interruptions + 1 > max_interruptions then return {"$INTERRUPT"} end
  return {"$INTERRUPT", "$RECOVER"}
end
