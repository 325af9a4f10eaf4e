-- Settle attempts and claim tasks: {whether each settlement took, sequence numbers of its follow-ups, claims, ids of
-- damaged tasks}. A settlement is {fence, move, follow-ups}.
local settlements, request = args[4], args[5]
of_many = #settlements > 1

-- Checked before the first write, since a script that fails is not undone. A settlement that follows another one of the
-- same task is compared with the row that the first one leaves.
local rows, rows_after = {}, {}
local when_full = #settlements > 0
for _, settlement in ipairs(settlements) do
  local fence, move = settlement[1], settlement[2]
  local id, target = fence[$FENCE_ID], move[1]
  if rows[id] == nil then rows[id] = load_row(id, true) or false end
  local row = rows_after[id] or rows[id]
  if fence_matches(row, fence) then
    if not allowed(row.state, target) then
      return redis.error_reply("ILLEGAL from " .. row.state .. " to " .. target)
    end
    if row.lease then when_full = false end -- the first write of its move takes no memory: see `once`
    rows_after[id] = {id = id, seq = row.seq, version = row.version + move[2], state = target, worker = move[4]}
    if KINDS[target] == "waiting" and not parse_call(rows[id], call("HGET", prefix .. ":task:" .. id, "call")) then
      rows[id], rows_after[id] = false, nil
    end
  end
end

local function settle(settlement)
  local fence, move, follow_ups = unpack(settlement, 1, 3)
  local row = rows[fence[$FENCE_ID]]
  if not fence_matches(row, fence) then return 0, {} end
  apply_move(row, move)
  local numbers = {}
  for n, new_task in ipairs(follow_ups) do
    numbers[n] = call("EXISTS", prefix .. ":task:" .. new_task[1]) == 0 and insert_task(new_task)
  end
  return 1, numbers
end

-- Give due tasks their priority as rank.
local function promote_due(now)
  for _, entry in ipairs(call("ZRANGEBYSCORE", prefix .. ":due", "-inf", now, "LIMIT", 0, $PROMOTE_LIMIT)) do
    local row = load_row(string.sub(entry, 17))
    if row then
      change("ZREM", ":due", entry)
      change("ZADD", ":ready", -row.priority, entry)
    else
      quarantine(":due", entry)
    end
  end
  flush()
end

local function set_of(names)
  local set = {}
  for _, name in ipairs(names) do set[name] = true end
  return set
end

-- The foremost tasks that no worker holds, `limit` if there are so many, in order: pairs of a set and an entry.
local function foremost(limit, skipped)
  local found = {}
  if any_aside == nil then look_up_rarities() end
  if not any_aside then
    for n, entry in ipairs(call("ZRANGE", prefix .. ":ready", 0, limit - 1)) do found[n] = {":ready", entry} end
    return found
  end
  local sets, seen = {":ready"}, {}
  for _, name in ipairs(call("SMEMBERS", prefix .. ":aside")) do
    if not (skipped and skipped[name]) then sets[#sets + 1] = ":aside:" .. name end
  end
  for _, set in ipairs(sets) do
    local entries = call("ZRANGE", prefix .. set, 0, limit - 1, "WITHSCORES")
    if #entries == 0 and set ~= ":ready" then call("SREM", prefix .. ":aside", string.sub(set, 8)) end
    for n = 1, #entries, 2 do
      if not seen[entries[n]] then found[#found + 1] = {set, entries[n], tonumber(entries[n + 1])} end
      seen[entries[n]] = true
    end
  end
  table.sort(found, function(a, b)
    if a[3] ~= b[3] then return a[3] < b[3] end
    return a[2] < b[2]
  end)
  for n = #found, limit + 1, -1 do found[n] = nil end -- before these there may be tasks that were not read
  return found
end

-- Set a task aside for workers that know its function.
local function set_aside(row, entry)
  change("ZREM", ":ready", entry)
  change("ZADD", ":aside:" .. row.name, -row.priority, entry)
  if row.expires and row.attempt == 0 then change("ZADD", ":due", row.expires, entry) end
  call("SADD", prefix .. ":aside", row.name)
  any_aside = true
end

-- The claim algorithm of `lifecycle.storage.claims.ClaimDecisions`; a test holds the two equal. For each task that moves
-- the trigger, the id, and the fields `at`, `call` and `payload` as they were before the move.
local function claim()
  local worker, now, lease_end, hold, limit, batchable, at, name, skip_names = unpack(request, 1, 9)
  local batchable_names, skipped = batchable and set_of(batchable), skip_names and set_of(skip_names)
  local key_count = count_rarities(prefix .. ":ready", prefix .. ":due")
  if key_count == 0 then return {} end
  if key_count == 1 and call("EXISTS", prefix .. ":ready") == 1 then -- the one that is there: nothing else is
    any_revoked, any_aside = false, false
  else
    of_many = true
    promote_due(now)
  end
  local claims, count, started, aside_count = {}, 0, false, 0
  while count < limit and aside_count < $PROMOTE_LIMIT do
    local found = foremost(skipped and math.max(limit - count, 100) or limit - count, skipped)
    if #found == 0 then return claims end
    of_many = #found > 1
    for n = 1, #found do
      if count >= limit or next(decided) then break end -- what was decided may come first
      local set, entry = found[n][1], found[n][2]
      local id = string.sub(entry, 17)
      local fields = call("HMGET", prefix .. ":task:" .. id, "at", "call", "payload", "history")
      local row = parse_row(id, fields[1], fields[4])
      if not row or not parse_call(row, fields[2]) then
        quarantine(set, entry)
      else
        row.entry = entry
        local own, of_function
        if any_revoked then own, of_function = revocation("t" .. id), revocation("f" .. row.name) end
        local trigger = admit(row, own, of_function, now)
        local has_expired = trigger == "$EXPIRE" and row.attempt == 0 and row.expires and row.expires <= now
        local ends = has_expired or verdict_of(row) == "$SKIP" or revoked_when_due(row, own, now)
        if skipped and skipped[row.name] and not ends then
          set_aside(row, entry)
          aside_count = aside_count + 1
        elseif trigger == nil then -- the clock was set back after the task had become due: the task waits on
          remove_from_sets(row)
          add_to_sets(row, own, now)
        else
          local starts = trigger == "$START"
          local alone = starts and batchable_names and not batchable_names[row.name]
          if alone and started then return claims end
          started = started or starts
          if trigger == "$REVOKE" and of_function and of_function[2] and not revoked_when_due(row, own, now) then
            call("HDEL", prefix .. ":revocations", "f" .. row.name)
          end
          local attempt = starts and row.attempt + 1 or row.attempt
          local target, steps, history = row.state, 1, ""
          if starts and target == "$PENDING" then
            target, steps = target_of(target, "$ENQUEUE"), 2
            history = history_line(target, row.attempt, at, name) -- the start counts the attempt
          end
          target = target_of(target, trigger)
          local lease = (starts or (hold and KINDS[target] == "waiting")) and lease_end
          if lease and count == 0 then -- the first write of a claim is one that a server without memory refuses
            call("SADD", prefix .. ":worker:" .. worker, id)
            row.is_at_worker = true
          end
          apply_move(row, {
            target, steps, history .. history_line(target, attempt, at, name), worker, attempt, row.retries,
            row.interruptions, not starts and row.eta, lease, now,
          }, true)
          count = count + 1
          local last = #claims
          claims[last + 1], claims[last + 2], claims[last + 3] = trigger, id, fields[1]
          claims[last + 4], claims[last + 5] = fields[2], fields[3] or ""
          if alone then return claims end
        end
      end
    end
    flush()
  end
  return claims
end

return once(function()
  local took, follow_ups = {}, {}
  for n, settlement in ipairs(settlements) do took[n], follow_ups[n] = settle(settlement) end
  flush()
  return {took, follow_ups, request and claim() or {}, damaged}
end, when_full)
