-- {whether a claim may find a task now, earliest due time or false, earliest end of a hold or false}. With the names of
-- functions to skip, a claim sets such tasks aside first: few of them are ready, or a claim has to be made.
local ready, set_aside = prefix .. ":ready", prefix .. ":aside"
if call("EXISTS", ready, set_aside, prefix .. ":due", prefix .. ":kept") == 0 then return {0, false, false} end
local due = call("ZRANGE", prefix .. ":due", 0, 0, "WITHSCORES")[2]
local kept = call("ZRANGE", prefix .. ":kept", 0, 0, "WITHSCORES")[2]
local skipped = {}
for _, name in ipairs(args[1]) do skipped[name] = true end

local function is_ready()
  if call("EXISTS", set_aside) == 1 then
    for _, name in ipairs(call("SMEMBERS", set_aside)) do
      if not skipped[name] and call("EXISTS", set_aside .. ":" .. name) == 1 then return true end
    end
  end
  local count = call("ZCARD", ready)
  if count == 0 or #args[1] == 0 or count > 1000 then return count > 0 end
  local entries = call("ZRANGE", ready, 0, -1, "WITHSCORES")
  for n = 1, #entries, 2 do
    local packed = call("HMGET", prefix .. ":task:" .. string.sub(entries[n], 17), "call", "at")
    local ok, values = pcall(cmsgpack.unpack, packed[1] or "")
    local begun_ok, at = pcall(cmsgpack.unpack, packed[2] or "")
    if not ok or type(values) ~= "table" or not skipped[values[1]] or tonumber(entries[n + 1]) == -$REVOKED_RANK then
      return true
    end
    local is_new = begun_ok and type(at) == "table" and at[5] == 0
    if is_new and values[3] and (not due or values[3] < tonumber(due)) then due = string.format("%.17g", values[3]) end
  end
  return false
end

return {is_ready() and 1 or 0, due or false, kept or false}
