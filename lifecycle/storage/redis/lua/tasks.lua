-- A page of tasks, newest first: {sequence number of the last task that was looked at, whether there are more, and for
-- each task its id, `at`, `call` and payload}. At most `page` tasks are looked at.
local states, limit, before, name, since, page = unpack(args, 1, 6)
local found = {}
local function note(seq, id)
  found[#found + 1] = {seq, id}
end
for _, state in ipairs(states) do
  if string.find("$RUNNING", "|" .. state .. "|", 1, true) then
    for _, entry in ipairs(call("ZRANGE", prefix .. ":running", 0, -1)) do
      local seq = tonumber(string.sub(entry, 1, 16))
      if not before or seq < before then note(seq, string.sub(entry, 17)) end
    end
  else
    local below = before and "(" .. string.format("%d", before) or "+inf"
    local entries = call("ZREVRANGEBYSCORE", prefix .. ":state:" .. state, below, "-inf", "WITHSCORES", "LIMIT", 0, page)
    for n = 1, #entries, 2 do note(tonumber(entries[n + 1]), entries[n]) end
  end
end
table.sort(found, function(a, b) return a[1] > b[1] end)

local function matches(packed)
  if not name and not since then return true end
  local ok, values = pcall(cmsgpack.unpack, packed or "")
  if not ok or type(values) ~= "table" then return false end
  return (not name or values[1] == name) and (not since or (values[6] or 0) >= since)
end

local tasks, count, last = {}, 0, 0
for n = 1, math.min(page, #found) do
  if count == limit then break end
  last = n
  local key = prefix .. ":task:" .. found[n][2]
  local fields = call("HMGET", key, "at", "call", "payload")
  if matches(fields[2]) then
    count = count + 1
    for _, value in ipairs({found[n][2], fields[1], fields[2], fields[3]}) do tasks[#tasks + 1] = value end
  end
end
local more = last < #found or #found >= page
return {last > 0 and found[last][1] or 0, more and 1 or 0, tasks}
