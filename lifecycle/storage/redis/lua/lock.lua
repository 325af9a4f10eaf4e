-- Take a lock: {name, what is stored of it, now}; give it back: {name, nil, its owner}.
local name, lock, other = A[4], A[5], A[6]

return once(function()
  local held = call("HGET", P .. ":locks", name)
  held = held and cmsgpack.unpack(held)
  if lock then
    if held and held[2] > other then return 0 end
    call("HSET", P .. ":locks", name, lock)
    return 1
  end
  if not held or held[1] ~= other then return 0 end
  return call("HDEL", P .. ":locks", name)
end)
