-- Number of tasks in each of the given states.
local counts, names = {}, call("ZRANGEBYSCORE", prefix .. ":index", "+inf", "+inf")
for n, state in ipairs(args[1]) do
  if string.find("$RUNNING", "|" .. state .. "|", 1, true) then
    counts[n] = call("ZCARD", prefix .. ":running")
  else
    counts[n] = 0
    for _, member in ipairs(names) do
      counts[n] = counts[n] + call("ZCARD", prefix .. ":state:" .. state .. ":" .. string.sub(member, 2))
    end
  end
end
return counts
