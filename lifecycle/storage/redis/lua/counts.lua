-- Number of tasks in each of the given states.
local counts = {}
for n, state in ipairs(args[1]) do
  local running = string.find("$RUNNING", "|" .. state .. "|", 1, true)
  counts[n] = call("ZCARD", prefix .. (running and ":running" or ":state:" .. state))
end
return counts
