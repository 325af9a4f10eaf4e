-- A page of tasks, newest first: {sequence number of the last task that was looked at, whether there may be more, and for
-- each task its id, `at`, `call` and payload}. At most `page` tasks are looked at.
local states, limit, before, wanted_name, since, page = unpack(args, 1, 6)

-- Runs of sequence numbers in which tasks may be, the newest first: with `since`, blocks with later tasks.
local runs = {{low = 0, high = before and before - 1 or 2 ^ 53}}
if since then
  local top, blocks = runs[1].high, call("ZRANGEBYSCORE", prefix .. ":index", string.format("%.17g", since), "(+inf")
  for n, block in ipairs(blocks) do blocks[n] = tonumber(block) end
  table.sort(blocks, function(a, b) return a > b end)
  runs = {}
  for _, block in ipairs(blocks) do
    local low, high = block * 256, math.min(top, block * 256 + 255)
    if #runs > 0 and runs[#runs].low == high + 1 then
      runs[#runs].low = low
    elseif low <= high then
      runs[#runs + 1] = {low = low, high = high}
    end
  end
end

-- A source is a set by state and function: its next tasks are read from the set a few at a time.
local FEW = 16
local function fill(source)
  source.tasks, source.place = {}, 1
  while #source.tasks == 0 and runs[source.run] do
    local run = runs[source.run]
    local high = math.min(run.high, source.below - 1)
    local entries = call(
      "ZREVRANGEBYSCORE", source.key, string.format("%d", high), string.format("%d", run.low), "WITHSCORES", "LIMIT", 0,
      FEW
    )
    for n = 1, #entries, 2 do source.tasks[#source.tasks + 1] = {tonumber(entries[n + 1]), entries[n]} end
    if #source.tasks > 0 then source.below = source.tasks[#source.tasks][1] end
    if #source.tasks < FEW then source.run = source.run + 1 end
  end
end

local sources = {}
local function add(source)
  if #source.tasks > 0 then sources[#sources + 1] = source end
end

local names = wanted_name and {"=" .. wanted_name} or call("ZRANGEBYSCORE", prefix .. ":index", "+inf", "+inf")
for _, state in ipairs(states) do
  if string.find("$RUNNING", "|" .. state .. "|", 1, true) then
    local running = {}
    for _, entry in ipairs(call("ZRANGE", prefix .. ":running", 0, -1)) do
      local seq = tonumber(string.sub(entry, 1, 16))
      if not before or seq < before then running[#running + 1] = {seq, string.sub(entry, 17)} end
    end
    table.sort(running, function(a, b) return a[1] > b[1] end)
    add({tasks = running, place = 1, run = #runs + 1})
  else
    for _, name in ipairs(names) do
      local source = {key = prefix .. ":state:" .. state .. ":" .. string.sub(name, 2), run = 1, below = 2 ^ 53}
      fill(source)
      add(source)
    end
  end
end

-- The newest task of all sources; nil if there is none left.
local function next_task()
  local best, best_seq
  for n, source in ipairs(sources) do
    local seq = source.tasks[source.place][1]
    if not best or seq > best_seq then best, best_seq = n, seq end
  end
  if not best then return nil end
  local source = sources[best]
  local task = source.tasks[source.place]
  source.place = source.place + 1
  if source.place > #source.tasks then
    fill(source)
    if #source.tasks == 0 then table.remove(sources, best) end
  end
  return task
end

local function matches(packed)
  if not wanted_name and not since then return true end
  local ok, values = pcall(cmsgpack.unpack, packed or "")
  if not ok or type(values) ~= "table" then return false end
  return (not wanted_name or values[1] == wanted_name) and (not since or (values[6] or 0) >= since)
end

local tasks, count, last, looked = {}, 0, 0, 0
while count < limit and looked < page do
  local task = next_task()
  if not task then return {last, 0, tasks} end
  looked, last = looked + 1, task[1]
  local fields = call("HMGET", prefix .. ":task:" .. task[2], "at", "call", "payload")
  if matches(fields[2]) then
    count = count + 1
    for _, value in ipairs({task[2], fields[1], fields[2], fields[3]}) do tasks[#tasks + 1] = value end
  end
end
return {last, #sources > 0 and 1 or 0, tasks}
