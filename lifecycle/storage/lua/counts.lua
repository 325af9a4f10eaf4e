-- How many tasks are in each of some states.
local counts = {}
for n, state in ipairs(A[1]) do counts[n] = call("ZCARD", P .. ":state:" .. state) end
return counts
