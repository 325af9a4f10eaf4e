-- New tasks, all or none: {1, places} or {0, an id that is taken}.
local births = A[4]

for _, born in ipairs(births) do
  if not allowed("", born[4][1]) then return redis.error_reply("ILLEGAL no task is born " .. born[4][1]) end
end

return once(function()
  local taken = {}
  for _, born in ipairs(births) do
    if taken[born[1]] or call("EXISTS", P .. ":task:" .. born[1]) == 1 then return {0, born[1]} end
    taken[born[1]] = true
  end
  local places = {}
  for n, born in ipairs(births) do places[n] = bear(born) end
  return {1, places}
end)
