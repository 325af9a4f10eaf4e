-- Before there were sets by state and function, there was one set for each state, and one of all tasks at rest: move
-- some tasks from the old sets to the new ones. Return the number of tasks that were moved.
of_many = true
local old_sets = {prefix .. ":ended"}
for state in string.gmatch("$STORED", "[^|]+") do old_sets[#old_sets + 1] = prefix .. ":state:" .. state end
if call("EXISTS", unpack(old_sets)) == 0 then return 0 end
call("HDEL", prefix .. ":answers", "") -- takes no memory: after it Redis allows the rest, even if its memory is full
local count = 0
for state in string.gmatch("$STORED", "[^|]+") do
  local old = prefix .. ":state:" .. state
  local entries = call("ZRANGE", old, 0, 499, "WITHSCORES")
  for n = 1, #entries, 2 do
    local row = {id = entries[n], seq = tonumber(entries[n + 1]), state = state}
    local ok, values = pcall(cmsgpack.unpack, call("HGET", prefix .. ":task:" .. row.id, "call") or "")
    local intact = ok and type(values) == "table" and type(values[1]) == "string"
    row.name = intact and values[1] or nil
    add_to_look_ups(row, intact and values[6] or 0)
    change("ZREM", ":state:" .. state, row.id)
    count = count + 1
  end
end
local ended = call("ZRANGE", prefix .. ":ended", 0, 499, "WITHSCORES")
for n = 1, #ended, 2 do
  local ok, values = pcall(cmsgpack.unpack, call("HGET", prefix .. ":task:" .. string.sub(ended[n], 17), "at") or "")
  local state = ok and type(values) == "table" and values[1] or "$ERROR"
  if KINDS[state] == "resting" then change("ZADD", ":ended:" .. state, ended[n + 1], ended[n]) end
  change("ZREM", ":ended", ended[n])
  count = count + 1
end
flush()
return count
