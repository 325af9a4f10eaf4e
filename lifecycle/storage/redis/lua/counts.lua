-- Number of tasks in each of the given states.
local counts, names = {}, call("SMEMBERS", prefix .. ":functions")
for n, state in ipairs(args[1]) do
  if string.find("$RUNNING", "|" .. state .. "|", 1, true) then
    counts[n] = call("ZCARD", prefix .. ":running")
  else
    counts[n] = 0
    for _, name in ipairs(names) do counts[n] = counts[n] + call("ZCARD", prefix .. ":state:" .. state .. ":" .. name) end
  end
end
return counts
