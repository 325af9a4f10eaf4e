-- What all scripts that write have in common: where things are, what the table allows, how a row moves.
--
-- A task is a hash: `call` (what was asked for; never changed), `at` (where it stands), `payload`, `history`, `result`.
-- `call` and `at` are MessagePack arrays; what is not there is nil in the first, false in the second. A task stands in
-- one set by its state (by age), and in one by what is to be done with it: ready, due, kept or ended; if it runs, in the
-- set `running` only. Entries
-- of those begin with its age, sixteen digits, so that equal scores go by age.

local STEPS, NEXT, WAITING, RUNNING = "$STEPS", "$NEXT", "$WAITING", "$RUNNING"

local function among(states, state)
  return string.find(states, "|" .. state .. "|", 1, true) ~= nil
end

-- The state that a trigger leads to.
local function after(state, trigger)
  local _, stop = string.find(NEXT, "|" .. state .. ">" .. trigger .. ">", 1, true)
  if not stop then error("ILLEGAL no " .. trigger .. " from " .. state) end
  return string.match(NEXT, "^[^|]+", stop + 1)
end

local function allowed(source, target)
  return string.find(STEPS, "|" .. source .. ">" .. target .. "|", 1, true) ~= nil
end

-- Changes of the sets, gathered so that those of many tasks are one command for each set.
local put, drop = {}, {}

local function later(changes, key, a, b)
  local list = changes[key]
  if not list then
    changes[key] = {a, b}
  else
    list[#list + 1] = a
    list[#list + 1] = b
  end
end

local function write(command, changes)
  for key, list in pairs(changes) do
    for from = 1, #list, 4000 do
      call(command, P .. key, unpack(list, from, math.min(from + 3999, #list)))
    end
  end
end

-- The channels that there is news for.
local news = {}

local function flush()
  if next(drop) then write("ZREM", drop) end
  if next(put) then write("ZADD", put) end
  drop, put = {}, {}
end

-- Have whoever waits look. Who calls knows by itself, and says how often it listens: perhaps nobody else does. (News that
-- are lost as a connection ends are made good for by whoever waits: it looks again after a few seconds.)
local function tell(channel, by, own)
  local name = P .. ":" .. channel
  if own < 0 or call("PUBSUB", "NUMSUB", name)[2] > own then call("PUBLISH", name, by) end
end

local any_revoked

local function revocation(field)
  if any_revoked == nil then any_revoked = call("EXISTS", P .. ":revocations") == 1 end
  local said = any_revoked and call("HGET", P .. ":revocations", field)
  return said and cmsgpack.unpack(said) or nil
end

-- A task, from its fields `at`, `call` and `history`; nil if they cannot be read.
local function row_of(id, at, asked, history)
  if not at or not asked then return nil end
  local fine, now = pcall(cmsgpack.unpack, at)
  local too, what = pcall(cmsgpack.unpack, asked)
  if not (fine and too and type(now) == "table" and type(what) == "table" and type(now[4]) == "number"
      and type(what[1]) == "string" and type(what[2]) == "number" and among("$STORED", tostring(now[1]))) then
    return nil
  end
  return {
    id = id, state = now[1], version = now[2], worker = now[3], seq = now[4], attempt = now[5], retries = now[6],
    interruptions = now[7], eta = now[8], lease = now[9], canceling = now[10],
    name = what[1], priority = what[2], expires = what[3], history = history or "",
  }
end

local function load(id)
  local found = call("HMGET", P .. ":task:" .. id, "at", "call", "history")
  return row_of(id, found[1], found[2], found[3])
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

local function packed(row)
  return cmsgpack.pack({
    row.state, row.version, row.worker, row.seq, row.attempt, row.retries, row.interruptions, row.eta, row.lease,
    row.canceling,
  })
end

local function entry(row)
  return string.format("%016d", row.seq) .. row.id
end

-- Out of the set where it is found now.
local function leave(row, ready)
  if among(WAITING, row.state) and not row.lease then
    later(drop, ":ready", entry(row))
    if not ready then later(drop, ":due", entry(row)) end
  elseif row.lease then
    later(drop, among(RUNNING, row.state) and ":running" or ":kept", entry(row))
    call("SREM", P .. ":worker:" .. row.worker, row.id)
  else
    later(drop, ":ended", entry(row))
  end
end

-- Into the set where it is to be found from now on; `own`: what is revoked of it.
local function enter(row, own, now)
  if row.lease then
    later(put, among(RUNNING, row.state) and ":running" or ":kept", row.lease, entry(row))
    call("SADD", P .. ":worker:" .. row.worker, row.id)
  elseif among(WAITING, row.state) then
    local rank, due = visibility(row, own, now)
    if rank then
      later(put, ":ready", -rank, entry(row))
    else
      later(put, ":due", due, entry(row))
    end
    news.work = true
  else
    later(put, ":ended", now, entry(row))
  end
end

-- The only place where a stored state changes. A move is {target, how many states, history, worker, attempt, retries,
-- interruptions, eta, lease, when, result or nil, whether it begins with an interruption}.
local function move(row, made, ready)
  leave(row, ready)
  if not among(RUNNING, row.state) then later(drop, ":state:" .. row.state, row.id) end
  row.state, row.version, row.worker = made[1], row.version + made[2], made[4]
  row.attempt, row.retries, row.interruptions, row.eta, row.lease = made[5], made[6], made[7], made[8], made[9]
  local runs = among(RUNNING, row.state)
  if not runs then later(put, ":state:" .. row.state, row.seq, row.id) end
  local rests = not runs and not among(WAITING, row.state)
  if rests and row.canceling then
    row.canceling = false
    call("SREM", P .. ":canceling", row.id)
  end
  local own
  if row.state == "$REVOKED" then
    call("HDEL", P .. ":revocations", "t" .. row.id)
  elseif not rests then
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

-- A new task: {id, call, payload, move, priority, expires, name}; its place.
local function bear(born)
  local made = born[4]
  local row = {
    id = born[1], state = made[1], version = made[2], worker = made[4], seq = call("INCR", P .. ":seq"),
    attempt = made[5], retries = made[6], interruptions = made[7], eta = made[8], lease = made[9], canceling = false,
    priority = born[5], expires = born[6],
  }
  call("HSET", P .. ":task:" .. row.id, "call", born[2], "at", packed(row), "payload", born[3], "history", made[3])
  later(put, ":state:" .. row.state, row.seq, row.id)
  enter(row, revocation("t" .. row.id), made[10])
  return row.seq
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
  return row ~= nil and row.seq == known[2] and row.version == known[3] and row.state == known[4]
    and row.worker == known[5]
end

-- Calls are numbered, so that one whose answer was lost can be made again: it gets the answer that was lost, and one that
-- was given up meanwhile comes too late.
local function once(body)
  local slot, number = A[1], A[2]
  local last = call("HGET", P .. ":answers", slot)
  if last and number <= tonumber(string.sub(last, 1, 16)) then
    if number < tonumber(string.sub(last, 1, 16)) or #last == 16 then return redis.error_reply("LATE") end
    return cmsgpack.unpack(string.sub(last, 17))
  end
  local answer = body()
  flush()
  if news.work then tell("work", A[3][1], A[3][2]) end
  if news.outcome then tell("outcome", A[3][1], A[3][3]) end
  answer = {(news.work and 1 or 0) + (news.outcome and 2 or 0), answer}
  call("HSET", P .. ":answers", slot, string.format("%016d", number) .. cmsgpack.pack(answer))
  return answer
end
