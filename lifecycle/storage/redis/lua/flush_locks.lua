-- Free these locks, or all; how many there were.
return once(function()
  if A[4] then
    local count = 0
    for _, name in ipairs(A[4]) do count = count + call("HDEL", P .. ":locks", name) end
    return count
  end
  local count = call("HLEN", P .. ":locks")
  call("DEL", P .. ":locks")
  return count
end)
