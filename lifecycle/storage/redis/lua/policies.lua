-- The rules of `lifecycle.policies` as a script needs them, which cannot ask Python in the midst of a call. They decide
-- nothing else than those: a test holds the two equal. What starts with a dollar is filled in from the table.
--
-- A revocation is {until or nil, once}; a row is what `load` in moves.lua makes.

local function holds(revocation, at)
  return revocation[1] == nil or at < revocation[1]
end

local function revoked_when_due(row, own, now)
  return own ~= nil and holds(own, (row.eta and row.eta > now) and row.eta or now)
end

-- The rank, or else the moment when it gets one.
local function visibility(row, own, now)
  if revoked_when_due(row, own, now) then
    return $REVOKED_RANK, nil
  elseif row.state == "$QUEUED" then
    return row.priority, nil
  end
  local due = math.huge
  if row.eta and row.eta < due then due = row.eta end
  if row.expires and row.expires < due then due = row.expires end
  return nil, due
end

-- The trigger, or nil to let it wait on.
local function admit(row, own, of_function, now)
  if row.expires and row.expires <= now then return "$EXPIRE" end
  if revoked_when_due(row, own, now) then return "$REVOKE" end
  if row.eta and row.eta > now then
    return row.state == "$QUEUED" and "$SCHEDULE" or nil
  end
  if of_function ~= nil and holds(of_function, now) then return "$REVOKE" end
  return "$START"
end

-- What a worker that is gone has left: the path.
local function recovery(row, max_interruptions)
  if row.canceling then return {"$CANCEL"} end
  if row.interruptions + 1 > max_interruptions then return {"$INTERRUPT"} end
  return {"$INTERRUPT", "$RECOVER"}
end
