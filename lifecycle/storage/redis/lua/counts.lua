-- How many tasks are in each of some states.
local counts = {}
for n, state in ipairs(A[1]) do
  local running = string.find("$RUNNING", "|" .. state .. "|", 1, true)
  counts[n] = call("ZCARD", P .. (running and ":running" or ":state:" .. state))
end
return counts
