-- The keys of the sets by state and function that have tasks.
local found = {}
for _, member in ipairs(call("ZRANGEBYSCORE", prefix .. ":index", "+inf", "+inf")) do
  for state in string.gmatch("$STORED", "[^|]+") do
    local key = prefix .. ":state:" .. state .. ":" .. string.sub(member, 2)
    if call("EXISTS", key) == 1 then found[#found + 1] = key end
  end
end
return found
