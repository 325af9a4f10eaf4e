-- Insert new tasks, all or none: {1, sequence numbers}, or {0, an id that is taken}. With a tick {name, until, before} of
-- a periodic task (before: false for none) its state is stored, too; {2} if that is not the next tick.
local new_tasks, tick = args[4], args[5]
of_many = #new_tasks > 1

for _, new_task in ipairs(new_tasks) do
  if not allowed("", new_task[4][1]) then
    return redis.error_reply("ILLEGAL no task is born " .. new_task[4][1])
  end
end

-- The first id that is taken, by a stored task or by an earlier one of the call; nil: none is.
local function taken_id()
  local seen, keys, twice = {}, {}, nil
  for n, new_task in ipairs(new_tasks) do
    local id = new_task[1]
    if seen[id] then
      twice = id
      break
    end
    seen[id], keys[n] = true, prefix .. ":task:" .. id
  end
  if #keys > 4000 or count_rarities(unpack(keys)) > 0 then
    for n, key in ipairs(keys) do
      if call("EXISTS", key) == 1 then return new_tasks[n][1] end
    end
  end
  return twice
end

return once(function()
  local state = tick and call("HGET", prefix .. ":periodic", tick[1])
  state = state and cmsgpack.unpack(state)
  if tick and ((state and state[1]) ~= tick[3] or (state and state[2])) then return {2, false} end
  local taken = taken_id()
  if taken then return {0, taken} end
  local numbers = {}
  for n, new_task in ipairs(new_tasks) do numbers[n] = insert_task(new_task) end
  if tick then
    local latest = #new_tasks > 0 and new_tasks[#new_tasks][1] or state and state[3]
    call("HSET", prefix .. ":periodic", tick[1], cmsgpack.pack({tick[2], false, latest}))
  end
  return {1, numbers}
end)
