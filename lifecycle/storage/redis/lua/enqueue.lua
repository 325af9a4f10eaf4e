-- Insert new tasks, all or none: {1, sequence numbers}, or {0, an id that is taken}.
local new_tasks = args[4]

for _, new_task in ipairs(new_tasks) do
  if not allowed("", new_task[4][1]) then
    return redis.error_reply("ILLEGAL no task is born " .. new_task[4][1])
  end
end

return once(function()
  local taken = {}
  for _, new_task in ipairs(new_tasks) do
    local id = new_task[1]
    if taken[id] or call("EXISTS", prefix .. ":task:" .. id) == 1 then return {0, id} end
    taken[id] = true
  end
  local numbers = {}
  for n, new_task in ipairs(new_tasks) do numbers[n] = insert_task(new_task) end
  return {1, numbers}
end)
