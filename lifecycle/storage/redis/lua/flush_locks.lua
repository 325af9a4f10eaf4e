-- Free the locks with these names, or all locks; return the number of locks.
return once(function()
  if args[4] then
    local count = 0
    for _, name in ipairs(args[4]) do count = count + call("HDEL", prefix .. ":locks", name) end
    return count
  end
  local count = call("HLEN", prefix .. ":locks")
  call("DEL", prefix .. ":locks")
  return count
end, true)
