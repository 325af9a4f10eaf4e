-- Take a lock: {name, packed lock, now}. Free a lock: {name, nil, owner}. Return 1, or 0 if another owner has the lock.
local name, lock, now_or_owner = args[4], args[5], args[6]

return once(function()
  local held = call("HGET", prefix .. ":locks", name)
  held = held and cmsgpack.unpack(held)
  if lock then
    if held and held[2] > now_or_owner then return 0 end
    call("HSET", prefix .. ":locks", name, lock)
    return 1
  end
  if not held or held[1] ~= now_or_owner then return 0 end
  return call("HDEL", prefix .. ":locks", name)
end, not lock)
