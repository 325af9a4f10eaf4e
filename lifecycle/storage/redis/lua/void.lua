-- What was answered to a call whose answer was lost; nothing if it has not happened, and then it never will.
local slot, number = A[1], A[2]
local last = call("HGET", P .. ":answers", slot)
if last and number <= tonumber(string.sub(last, 1, 16)) then
  return #last > 16 and cmsgpack.unpack(string.sub(last, 17)) or false
end
call("HSET", P .. ":answers", slot, string.format("%016d", number))
return false
