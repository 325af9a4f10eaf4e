-- Ids of the tasks that certain workers run and for which cancellation was requested.
local workers, ids = {}, {}
for _, worker in ipairs(args[1]) do workers[worker] = true end
for _, id in ipairs(call("SMEMBERS", prefix .. ":canceling")) do
  local at = call("HGET", prefix .. ":task:" .. id, "at")
  local ok, row = pcall(cmsgpack.unpack, at or "")
  if ok and type(row) == "table" and workers[row[3]] and string.find("$RUNNING", "|" .. row[1] .. "|", 1, true) then
    ids[#ids + 1] = id
  end
end
return ids
