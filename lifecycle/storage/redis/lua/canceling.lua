-- The ids of the tasks that some workers run and that are to be called off.
local workers, found = {}, {}
for _, worker in ipairs(A[1]) do workers[worker] = true end
for _, id in ipairs(call("SMEMBERS", P .. ":canceling")) do
  local at = call("HGET", P .. ":task:" .. id, "at")
  local fine, now = pcall(cmsgpack.unpack, at or "")
  if fine and type(now) == "table" and workers[now[3]] and string.find("$RUNNING", "|" .. now[1] .. "|", 1, true) then
    found[#found + 1] = id
  end
end
return found
