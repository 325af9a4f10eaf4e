-- The kept answer to a call whose answer was lost; false if the call has not happened. From then on it cannot happen.
local slot, number = args[1], args[2]
call("HDEL", prefix .. ":answers", "") -- takes no memory: after it Redis allows the rest, even if its memory is full
local last = call("HGET", prefix .. ":answers", slot)
if last and number <= tonumber(string.sub(last, 1, 16)) then
  return #last > 16 and cmsgpack.unpack(string.sub(last, 17)) or false
end
call("HSET", prefix .. ":answers", slot, string.format("%016d", number))
return false
