-- Common to all scripts that write: the table, changes of sets, notifications, and answers that are kept.

local KINDS = {$KINDS}

local function allowed(source, target)
  return string.find("$STEPS", "|" .. source .. ">" .. target .. "|", 1, true) ~= nil
end

-- Changes of sets: those of one task are made at once, those of many tasks are collected, so that they are one command
-- for each set.
local of_many = false
local collected = {}

local function change(command, key, a, b)
  if not of_many then
    if b == nil then call(command, prefix .. key, a) else call(command, prefix .. key, a, b) end
    return
  end
  local changes = collected[command]
  if not changes then
    changes = {}
    collected[command] = changes
  end
  local list = changes[key]
  if not list then
    changes[key] = {a, b}
  else
    list[#list + 1] = a
    list[#list + 1] = b
  end
end

local function write(command)
  for key, list in pairs(collected[command] or {}) do
    for from = 1, #list, 4000 do
      call(command, prefix .. key, unpack(list, from, math.min(from + 3999, #list)))
    end
  end
end

local function write_changes()
  if not next(collected) then return end
  write("ZREM")
  write("ZADD")
  write("SADD")
  collected = {}
end

-- Tasks that got their verdicts, each with the moment: {row, now}. Their sets change after the collected changes, since
-- these may concern the same tasks. `sort_decided` is set in moves.lua: only there are verdicts given.
local decided, sort_decided = {}, nil

local function flush()
  write_changes()
  if next(decided) then
    sort_decided()
    write_changes()
  end
end

-- The channels on which subscribers are notified after this call.
local changed = {}

-- Notify the subscribers of a channel. The calling process needs no message: nothing is published if its own
-- subscriptions (`own`; negative: unknown) are the only ones. A subscriber whose connection ends misses messages, and
-- therefore looks again every few seconds.
local function publish(channel, process, own)
  local name = prefix .. ":" .. channel
  if own < 0 or call("PUBSUB", "NUMSUB", name)[2] > own then call("PUBLISH", name, process) end
end

-- Run an operation once. `when_full`: also if the server's memory is full, since the operation frees memory or keeps what
-- is there. Redis refuses commands that take memory only before the first write of a script: the first one here is a
-- write that takes none. Calls are numbered for each connection. If the answer to a call was lost, the same call gets
-- the same answer again. If the client gave the call up meanwhile (resolve.lua), the call changes nothing.
local function once(operation, when_full)
  local slot, number = args[1], args[2]
  local last = call("HGET", prefix .. ":answers", slot)
  if last and number <= tonumber(string.sub(last, 1, 16)) then
    if number < tonumber(string.sub(last, 1, 16)) or #last == 16 then return redis.error_reply("LATE") end
    return cmsgpack.unpack(string.sub(last, 17))
  end
  if when_full then call("HDEL", prefix .. ":answers", "") end
  local answer = operation()
  flush()
  if changed.work then publish("work", args[3][1], args[3][2]) end
  if changed.outcome then publish("outcome", args[3][1], args[3][3]) end
  answer = {(changed.work and 1 or 0) + (changed.outcome and 2 or 0), answer}
  call("HSET", prefix .. ":answers", slot, string.format("%016d", number) .. cmsgpack.pack(answer))
  return answer
end
