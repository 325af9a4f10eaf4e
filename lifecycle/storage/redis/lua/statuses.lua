-- For each id the fields `at` and `result` of its task.
local found = {}
for n, id in ipairs(args[1]) do found[n] = call("HMGET", prefix .. ":task:" .. id, "at", "result") end
return found
