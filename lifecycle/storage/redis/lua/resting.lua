-- Tasks that rest in certain states since before a moment, oldest first: {whether there may be more, the last entry that
-- was looked at, its score, entries of the set `ended`}. At most `page` entries behind `last`, such a pair, are looked at.
local states, before, limit, last, page = unpack(args, 1, 5)
local ended = prefix .. ":ended"

local wanted, sets, count = {}, {}, 0
local names = call("ZRANGEBYSCORE", prefix .. ":index", "+inf", "+inf")
for _, state in ipairs(states) do
  wanted[state] = true
  for _, name in ipairs(names) do
    local set = prefix .. ":state:" .. state .. ":" .. string.sub(name, 2)
    sets[#sets + 1] = set
    count = count + call("ZCARD", set)
  end
end

-- So few tasks are found by their states.
if count <= page then
  local found = {}
  for _, set in ipairs(sets) do
    local tasks = call("ZRANGE", set, 0, -1, "WITHSCORES")
    for n = 1, #tasks, 2 do
      local entry = string.format("%016d", tonumber(tasks[n + 1])) .. tasks[n]
      local at = tonumber(call("ZSCORE", ended, entry) or "inf")
      if at < before then found[#found + 1] = {at, entry} end
    end
  end
  table.sort(found, function(a, b)
    if a[1] ~= b[1] then return a[1] < b[1] end
    return a[2] < b[2]
  end)
  local entries = {}
  for n = 1, math.min(limit, #found) do entries[n] = found[n][2] end
  return {0, "", "", entries}
end

local place = 0
if last then
  local rank = call("ZRANK", ended, last[1])
  place = rank and rank + 1 or call("ZCOUNT", ended, "-inf", "(" .. last[2])
end
local looked, entries = call("ZRANGE", ended, place, place + page - 1, "WITHSCORES"), {}
for n = 1, #looked, 2 do
  if tonumber(looked[n + 1]) >= before or #entries == limit then return {0, "", "", entries} end
  local ok, at = pcall(cmsgpack.unpack, call("HGET", prefix .. ":task:" .. string.sub(looked[n], 17), "at") or "")
  if ok and type(at) == "table" and wanted[at[1]] then entries[#entries + 1] = looked[n] end
end
return {#looked == 2 * page and 1 or 0, looked[#looked - 1] or "", looked[#looked] or "", entries}
