-- Delete tasks that came to rest before a moment, oldest first; return the number of tasks. With states and entries: of
-- these entries of the set `ended` those that still count.
local moment, limit, wanted_states, wanted_entries = unpack(args, 4, 7)
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

local function still_wanted(entry)
  local at, row = call("ZSCORE", prefix .. ":ended", entry), load_row(string.sub(entry, 17), true)
  if not at or tonumber(at) >= moment or not row then return false end
  for _, state in ipairs(wanted_states) do
    if row.state == state then return true end
  end
  return false
end

local function old_entries()
  if not wanted_entries then
    local before = "(" .. string.format("%.17g", moment)
    return call("ZRANGEBYSCORE", prefix .. ":ended", "-inf", before, "LIMIT", 0, limit)
  end
  local entries = {}
  for _, entry in ipairs(wanted_entries) do
    if still_wanted(entry) then entries[#entries + 1] = entry end
  end
  return entries
end

return once(function()
  local entries = old_entries()
  for _, entry in ipairs(entries) do
    local id = string.sub(entry, 17)
    local row = load_row(id, true) or {id = id}
    for _, state in ipairs(row.state and {row.state} or states) do
      row.state = state
      remove_from_state_set(row)
    end
    defer(zrems, ":ended", entry)
    call("UNLINK", prefix .. ":task:" .. id)
    call("HDEL", prefix .. ":revocations", "t" .. id)
  end
  flush()
  if #entries > 0 then tidy() end
  return #entries
end, true)
