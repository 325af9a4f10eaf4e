-- The keys of the sets by state and function that have tasks.
local found = {}
for _, name in ipairs(call("SMEMBERS", prefix .. ":functions")) do
  for state in string.gmatch("$STORED", "[^|]+") do
    local key = prefix .. ":state:" .. state .. ":" .. name
    if call("EXISTS", key) == 1 then found[#found + 1] = key end
  end
end
return found
