-- Tasks, the newest first: the place of the last; id, `at`, `call` and payload of each.
local states, limit, before = A[1], A[2], A[3]
local found = {}
local function note(place, id)
  found[#found + 1] = {place, id}
end
for _, state in ipairs(states) do
  if string.find("$RUNNING", "|" .. state .. "|", 1, true) then
    for _, entry in ipairs(call("ZRANGE", P .. ":running", 0, -1)) do
      local place = tonumber(string.sub(entry, 1, 16))
      if not before or place < before then note(place, string.sub(entry, 17)) end
    end
  else
    local below = before and "(" .. string.format("%d", before) or "+inf"
    local entries = call("ZREVRANGEBYSCORE", P .. ":state:" .. state, below, "-inf", "WITHSCORES", "LIMIT", 0, limit)
    for n = 1, #entries, 2 do note(tonumber(entries[n + 1]), entries[n]) end
  end
end
table.sort(found, function(a, b) return a[1] > b[1] end)
local tasks = {}
for n = 1, math.min(limit, #found) do
  local fields = call("HMGET", P .. ":task:" .. found[n][2], "at", "call", "payload")
  for _, value in ipairs({found[n][2], fields[1], fields[2], fields[3]}) do tasks[#tasks + 1] = value end
end
return {math.min(limit, #found) > 0 and found[math.min(limit, #found)][1] or 0, tasks}
