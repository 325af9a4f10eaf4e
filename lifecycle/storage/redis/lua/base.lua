-- What all scripts that write have in common: the table, the sets, how news and answers are given.

local KINDS = {$KINDS}

local function allowed(source, target)
  return string.find("$STEPS", "|" .. source .. ">" .. target .. "|", 1, true) ~= nil
end

-- Changes of the sets, gathered so that those of many tasks are one command for each set.
local put, drop, take = {}, {}, {}

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
  if next(take) then write("SADD", take) end
  drop, put, take = {}, {}, {}
end

-- Have whoever waits look. Who calls knows by itself, and says how often it listens: perhaps nobody else does. (News that
-- are lost as a connection ends are made good for by whoever waits: it looks again after a few seconds.)
local function tell(channel, by, own)
  local name = P .. ":" .. channel
  if own < 0 or call("PUBSUB", "NUMSUB", name)[2] > own then call("PUBLISH", name, by) end
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
