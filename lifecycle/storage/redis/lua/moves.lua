-- Moves of stored tasks.

-- The state that a trigger leads to.
local function target_of(state, trigger)
  local _, stop = string.find("$NEXT", "|" .. state .. ">" .. trigger .. ">", 1, true)
  if not stop then error("ILLEGAL no " .. trigger .. " from " .. state) end
  return string.match("$NEXT", "^[^|]+", stop + 1)
end

-- A row from the fields of a task; nil if the fields are damaged.
local function parse_row(id, at, history)
  local ok, values = pcall(cmsgpack.unpack, at or "")
  if not ok or type(values) ~= "table" or type(values[4]) ~= "number" or not KINDS[values[1]] then return nil end
  if values[12] and not verdict_of({verdict = values[12]}) then return nil end
  return {
    id = id, state = values[1], version = values[2], worker = values[3], seq = values[4], attempt = values[5],
    retries = values[6], interruptions = values[7], eta = values[8], lease = values[9], canceling = values[10],
    name = values[11] or nil, verdict = values[12], history = history or "",
  }
end

-- Read the field `call` into a row; return whether the field is intact.
local function parse_call(row, packed)
  local ok, values = pcall(cmsgpack.unpack, packed or "")
  if not ok or type(values) ~= "table" or type(values[1]) ~= "string" or type(values[2]) ~= "number" then
    return false
  end
  local step = values[7]
  if step ~= nil then
    if type(step) ~= "table" or type(step[2]) ~= "number" or type(step[3]) ~= "table" then return false end
    row.awaits, row.dependents, row.on_failure = step[2], step[3], step[4]
  end
  row.name, row.priority, row.expires = values[1], values[2], values[3]
  row.expires_after = type(values[4]) == "table" and values[4].expires_after or nil
  return true
end

-- Load the row of a task; nil if there is none, or if it is damaged. `without_call`: leave out the field `call`. A row
-- that an older release has written has no name; if the field `call` is damaged, too, its name stays nil.
local function load_row(id, without_call)
  local key = prefix .. ":task:" .. id
  local fields = without_call and call("HMGET", key, "at", "history") or call("HMGET", key, "at", "history", "call")
  local row = parse_row(id, fields[1], fields[2])
  if row and without_call and not row.name then parse_call(row, call("HGET", key, "call")) end
  return row and (without_call or parse_call(row, fields[3])) and row or nil
end

-- A damaged task must not stop the claims of other tasks: its entry goes to the set `damaged`.
local damaged = {}

local function quarantine(set, entry)
  local id = string.sub(entry, 17)
  call("ZREM", prefix .. set, entry)
  if call("EXISTS", prefix .. ":task:" .. id) == 1 then
    call("ZADD", prefix .. ":damaged", string.sub(entry, 1, 16), id)
  end
  damaged[#damaged + 1] = id
end

-- Remove a task that does not run from its set by state and function.
local function remove_from_state_set(row)
  if row.name then
    change("ZREM", state_set(row), row.id)
  else
    for _, member in ipairs(call("ZRANGEBYSCORE", prefix .. ":index", "+inf", "+inf")) do
      change("ZREM", ":state:" .. row.state .. ":" .. string.sub(member, 2), row.id)
    end
  end
end

-- Remove a task from the set of its next step. `was_ready`: the task is known to be in `ready`.
local function remove_from_sets(row, was_ready)
  if KINDS[row.state] == "waiting" and not row.lease then
    change("ZREM", ":ready", set_entry(row))
    if any_aside == nil then look_up_rarities() end
    if any_aside then change("ZREM", ":aside:" .. row.name, set_entry(row)) end
    if any_aside or not was_ready then change("ZREM", ":due", set_entry(row)) end
  elseif row.lease then
    change("ZREM", KINDS[row.state] == "running" and ":running" or ":kept", set_entry(row))
    call("SREM", prefix .. ":worker:" .. row.worker, row.id)
  else
    change("ZREM", ":ended:" .. row.state, set_entry(row))
    change("ZREM", ":ended", set_entry(row)) -- the set of an older release
  end
end

-- The two functions of `lifecycle.core.task` that keep a history short.
local function is_history_cut(before, after)
  return after > $HISTORY_HEAD + $HISTORY_TAIL
    and math.floor(before / $HISTORY_STEP) ~= math.floor(after / $HISTORY_STEP)
end

local function cut_history(history, version)
  local lines = {}
  for line in string.gmatch(history, "[^\n]+") do lines[#lines + 1] = line end
  local first = #lines - $HISTORY_TAIL - version % $HISTORY_STEP + 1
  if first <= $HISTORY_HEAD + 1 then return history end
  local fields, left_out = nil, first - $HISTORY_HEAD - 1
  for n = $HISTORY_HEAD + 1, first do
    local gap
    fields, gap = string.match(lines[n], "^([^\t]*\t[^\t]*\t[^\t]*\t[^\t]*)\t?(%d*)")
    left_out = left_out + (tonumber(gap) or 0)
  end
  lines[first] = fields .. "\t" .. string.format("%d", left_out)
  return table.concat(lines, "\n", 1, $HISTORY_HEAD) .. "\n" .. table.concat(lines, "\n", first) .. "\n"
end

sort_decided = function()
  local all = decided
  decided = {}
  for _, one in ipairs(all) do
    local row, now = one[1], one[2]
    remove_from_sets(row)
    add_to_sets(row, revocation("t" .. row.id), now)
  end
end

-- Count the end of a task for a task that waits for it. The last end decides, and the first without success.
local function hear(id, cause, completed, now)
  local missing = completed and call("HINCRBY", prefix .. ":awaits", id, -1) or 0
  if missing > 0 then return end
  local was_undecided = call("HDEL", prefix .. ":awaits", id) == 1 and missing == 0
  local row = was_undecided and load_row(id)
  if not row or row.state ~= "$PENDING" then return end
  row.verdict = verdict_text(completed == row.on_failure and "$SKIP" or "$ENQUEUE", now, cause)
  call("HSET", prefix .. ":task:" .. id, "at", pack_row(row))
  if not row.lease then decided[#decided + 1] = {row, now} end
end

-- Report the end of a step to the tasks that wait for it.
local function report(row, now)
  if not row.dependents then parse_call(row, call("HGET", prefix .. ":task:" .. row.id, "call")) end
  local trigger, _, cause = verdict_of(row)
  if trigger ~= "$SKIP" then cause = row.id end
  for _, id in ipairs(row.dependents or {}) do hear(id, cause, row.state == "$COMPLETED", now) end
end

-- Move a task: the only place where a stored state changes. A move is {target, number of states, history, worker,
-- attempt, retries, interruptions, eta, lease, time, result or nil, whether to free the locks of the attempt}.
local function apply_move(row, move, was_ready)
  remove_from_sets(row, was_ready)
  if KINDS[row.state] ~= "running" then remove_from_state_set(row) end
  row.state, row.version, row.worker = move[1], row.version + move[2], move[4]
  row.attempt, row.retries, row.interruptions, row.eta, row.lease = move[5], move[6], move[7], move[8], move[9]
  local kind = KINDS[row.state]
  if kind ~= "running" then
    change("ZADD", state_set(row), row.seq, row.id)
    if not row.name then call("ZADD", prefix .. ":index", "+inf", "=") end
  end
  local rests = kind == "resting"
  if rests and row.canceling then
    row.canceling = false
    call("SREM", prefix .. ":canceling", row.id)
  end
  local own
  if row.state == "$REVOKED" then
    call("HDEL", prefix .. ":revocations", "t" .. row.id)
  elseif kind == "waiting" and not row.lease then
    own = revocation("t" .. row.id)
  end
  if move[12] and call("EXISTS", prefix .. ":locks") == 1 then
    local locks = call("HGETALL", prefix .. ":locks")
    for n = 1, #locks, 2 do
      if cmsgpack.unpack(locks[n + 1])[4] == row.id then call("HDEL", prefix .. ":locks", locks[n]) end
    end
  end
  add_to_sets(row, own, move[10])
  local key = prefix .. ":task:" .. row.id
  row.history = row.history .. move[3]
  if is_history_cut(row.version - move[2], row.version) then
    row.history = cut_history(row.history, row.version)
  end
  if move[11] then
    call("HSET", key, "at", pack_row(row), "history", row.history, "result", move[11])
  else
    call("HSET", key, "at", pack_row(row), "history", row.history)
  end
  if move[11] or rests then changed.outcome = true end
  if rests and row.verdict ~= nil then report(row, move[10]) end
end

local function history_line(state, attempt, at, worker)
  return state .. "\t" .. at .. "\t" .. string.format("%d", attempt) .. "\t" .. worker .. "\n"
end

-- Sort a waiting task that no worker holds into the sets: its hold has ended, or its revocation has changed.
local function make_claimable(row, now)
  remove_from_sets(row)
  local key = prefix .. ":task:" .. row.id
  row.lease = false
  add_to_sets(row, revocation("t" .. row.id), now)
  call("HSET", key, "at", pack_row(row))
end

-- Whether a row still has the fence that the caller knows (`lifecycle.core.task.FENCE`).
local function fence_matches(row, fence)
  return row and $FENCE_MATCHES
end
