-- Tasks, newest first: {sequence number of the last, and for each task its id, `at`, `call` and payload}.
local states, limit, before = args[1], args[2], args[3]
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
    local entries = call("ZREVRANGEBYSCORE", prefix .. ":state:" .. state, below, "-inf", "WITHSCORES", "LIMIT", 0, limit)
    for n = 1, #entries, 2 do note(tonumber(entries[n + 1]), entries[n]) end
  end
end
table.sort(found, function(a, b) return a[1] > b[1] end)
local count, tasks = math.min(limit, #found), {}
for n = 1, count do
  local fields = call("HMGET", prefix .. ":task:" .. found[n][2], "at", "call", "payload")
  for _, value in ipairs({found[n][2], fields[1], fields[2], fields[3]}) do tasks[#tasks + 1] = value end
end
return {count > 0 and found[count][1] or 0, tasks}
