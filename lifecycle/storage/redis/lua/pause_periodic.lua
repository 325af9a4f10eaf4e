-- Pause a periodic task, or resume it: name, true or false, now. Return 0 if nothing changes.
local name, paused, now = args[4], args[5], args[6]

return once(function()
  local state = call("HGET", prefix .. ":periodic", name)
  state = state and cmsgpack.unpack(state)
  if (state and state[2]) == paused then return 0 end
  call("HSET", prefix .. ":periodic", name, cmsgpack.pack({now, paused, state and state[3]}))
  return 1
end)
