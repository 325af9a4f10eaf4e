-- Delete tasks that came to rest in certain states before a moment, oldest first; return the number of tasks.
local moment, limit, wanted_states = unpack(args, 4, 6)
of_many = true
local states = {}
for state in string.gmatch("$STORED", "[^|]+") do states[#states + 1] = state end

-- Forget functions of which no task is left, and the ages of blocks without tasks.
local function tidy()
  if call("ZCARD", prefix .. ":running") > 1000 then return end
  local oldest, used = tonumber(call("GET", prefix .. ":seq") or 0), {}
  for _, entry in ipairs(call("ZRANGE", prefix .. ":running", 0, -1)) do
    oldest = math.min(oldest, tonumber(string.sub(entry, 1, 16)))
    local row = load_row(string.sub(entry, 17), true)
    if row then used[row.name or ""] = true end
  end
  for _, member in ipairs(call("ZRANGEBYSCORE", prefix .. ":index", "+inf", "+inf")) do
    local name = string.sub(member, 2)
    for _, state in ipairs(states) do
      local first = call("ZRANGE", prefix .. ":state:" .. state .. ":" .. name, 0, 0, "WITHSCORES")
      if #first > 0 then
        used[name] = true
        oldest = math.min(oldest, tonumber(first[2]))
      end
    end
    if not used[name] then call("ZREM", prefix .. ":index", member) end
  end
  for _, block in ipairs(call("ZRANGEBYSCORE", prefix .. ":index", "-inf", "(+inf", "LIMIT", 0, 100)) do
    if tonumber(block) < math.floor(oldest / 256) then call("ZREM", prefix .. ":index", block) end
  end
end

-- The oldest entries of the sets of tasks at rest: {time, entry, state}, at most `limit`.
local function oldest_entries()
  local sources, found = {}, {}
  for _, state in ipairs(wanted_states) do
    local before = "(" .. string.format("%.17g", moment)
    local entries = call("ZRANGEBYSCORE", prefix .. ":ended:" .. state, "-inf", before, "WITHSCORES", "LIMIT", 0, limit)
    local source = {place = 1}
    for n = 1, #entries, 2 do source[#source + 1] = {tonumber(entries[n + 1]), entries[n], state} end
    if #source > 0 then sources[#sources + 1] = source end
  end
  while #found < limit and #sources > 0 do
    local best, first
    for n, source in ipairs(sources) do
      local next_one = source[source.place]
      if not best or next_one[1] < first[1] or (next_one[1] == first[1] and next_one[2] < first[2]) then
        best, first = n, next_one
      end
    end
    found[#found + 1] = first
    sources[best].place = sources[best].place + 1
    if sources[best].place > #sources[best] then table.remove(sources, best) end
  end
  return found
end

return once(function()
  local count = 0
  for _, found in ipairs(oldest_entries()) do
    local entry, state = found[2], found[3]
    local id = string.sub(entry, 17)
    local row = load_row(id, true)
    change("ZREM", ":ended:" .. state, entry)
    if not row or row.state == state then -- else an older release has moved the task
      for _, one in ipairs(row and {state} or states) do remove_from_state_set({id = id, state = one, name = row and row.name}) end
      call("UNLINK", prefix .. ":task:" .. id)
      call("HDEL", prefix .. ":revocations", "t" .. id)
      count = count + 1
    end
  end
  flush()
  if count > 0 then tidy() end
  return count
end, true)
