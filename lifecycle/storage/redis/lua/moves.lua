-- How tasks move.

-- The state that a trigger leads to.
local function after(state, trigger)
  local _, stop = string.find("$NEXT", "|" .. state .. ">" .. trigger .. ">", 1, true)
  if not stop then error("ILLEGAL no " .. trigger .. " from " .. state) end
  return string.match("$NEXT", "^[^|]+", stop + 1)
end

-- A task, from its fields; nil if they cannot be read.
local function row_of(id, at, history)
  local fine, now = pcall(cmsgpack.unpack, at or "")
  if not fine or type(now) ~= "table" or type(now[4]) ~= "number" or not KINDS[now[1]] then return nil end
  return {
    id = id, state = now[1], version = now[2], worker = now[3], seq = now[4], attempt = now[5], retries = now[6],
    interruptions = now[7], eta = now[8], lease = now[9], canceling = now[10], history = history or "",
  }
end

-- What was asked for, into the row; whether it can be read.
local function ask(row, asked)
  local fine, what = pcall(cmsgpack.unpack, asked or "")
  if not fine or type(what) ~= "table" or type(what[1]) ~= "string" or type(what[2]) ~= "number" then return false end
  row.name, row.priority, row.expires = what[1], what[2], what[3]
  return true
end

-- The whole row, or, if that will do, only where the task stands.
local function load(id, part)
  local key = P .. ":task:" .. id
  local found = part and call("HMGET", key, "at", "history") or call("HMGET", key, "at", "history", "call")
  local row = row_of(id, found[1], found[2])
  return row and (part or ask(row, found[3])) and row or nil
end

-- What cannot be read stops nobody: it is kept where it is in nobody's way.
local damaged = {}

local function set_aside(set, found)
  local id = string.sub(found, 17)
  call("ZREM", P .. set, found)
  if call("EXISTS", P .. ":task:" .. id) == 1 then
    call("ZADD", P .. ":damaged", string.sub(found, 1, 16), id)
  end
  damaged[#damaged + 1] = id
end

-- Out of the set where it is found now.
local function leave(row, ready)
  if KINDS[row.state] == "waiting" and not row.lease then
    later(drop, ":ready", entry(row))
    if not ready then later(drop, ":due", entry(row)) end
  elseif row.lease then
    later(drop, KINDS[row.state] == "running" and ":running" or ":kept", entry(row))
    -- At once: it takes no memory, and after it Redis lets the rest be done, too, be there none left.
    call("SREM", P .. ":worker:" .. row.worker, row.id)
  else
    later(drop, ":ended", entry(row))
  end
end

-- The only place where a stored state changes. A move is {target, how many states, history, worker, attempt, retries,
-- interruptions, eta, lease, when, result or nil, whether it breaks an attempt off}.
local function move(row, made, ready)
  leave(row, ready)
  if KINDS[row.state] ~= "running" then later(drop, ":state:" .. row.state, row.id) end
  row.state, row.version, row.worker = made[1], row.version + made[2], made[4]
  row.attempt, row.retries, row.interruptions, row.eta, row.lease = made[5], made[6], made[7], made[8], made[9]
  local kind = KINDS[row.state]
  if kind ~= "running" then later(put, ":state:" .. row.state, row.seq, row.id) end
  local rests = kind == "resting"
  if rests and row.canceling then
    row.canceling = false
    call("SREM", P .. ":canceling", row.id)
  end
  local own
  if row.state == "$REVOKED" then
    call("HDEL", P .. ":revocations", "t" .. row.id)
  elseif kind == "waiting" and not row.lease then
    own = revocation("t" .. row.id)
  end
  if made[12] and call("EXISTS", P .. ":locks") == 1 then
    local locks = call("HGETALL", P .. ":locks")
    for n = 1, #locks, 2 do
      if cmsgpack.unpack(locks[n + 1])[4] == row.id then call("HDEL", P .. ":locks", locks[n]) end
    end
  end
  enter(row, own, made[10])
  local key = P .. ":task:" .. row.id
  row.history = row.history .. made[3]
  if made[11] then
    call("HSET", key, "at", packed(row), "history", row.history, "result", made[11])
  else
    call("HSET", key, "at", packed(row), "history", row.history)
  end
  if made[11] or rests then news.outcome = true end
end

local function line(state, attempt, at, worker)
  return state .. "\t" .. at .. "\t" .. string.format("%d", attempt) .. "\t" .. worker .. "\n"
end

-- Let go of a waiting task that nobody holds any more, or of which something else is said now.
local function let_go(row, now)
  leave(row)
  local key = P .. ":task:" .. row.id
  row.lease = false
  enter(row, revocation("t" .. row.id), now)
  call("HSET", key, "at", packed(row))
end

-- Has nothing happened to it since it was read? The worker is compared, too: a store that was set back may give one
-- version out twice.
local function same(row, known)
  return row and row.seq == known[2] and row.version == known[3] and row.state == known[4]
    and row.worker == known[5]
end
