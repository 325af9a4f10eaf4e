-- Settle attempts and claim tasks: {whether each settlement took, sequence numbers of its follow-ups, claims, ids of
-- damaged tasks}. A settlement is {fence, move, follow-ups}.
local settlements, request = args[4], args[5]

-- Checked before the first write, since a script that fails is not undone. A settlement that follows another one of the
-- same task is compared with the row that the first one leaves.
local rows, rows_after = {}, {}
for _, settlement in ipairs(settlements) do
  local fence, move = settlement[1], settlement[2]
  local id, target = fence[$FENCE_ID], move[1]
  if rows[id] == nil then rows[id] = load_row(id, true) or false end
  local row = rows_after[id] or rows[id]
  if fence_matches(row, fence) then
    if not allowed(row.state, target) then
      return redis.error_reply("ILLEGAL from " .. row.state .. " to " .. target)
    end
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
      defer(zrems, ":due", entry)
      defer(zadds, ":ready", -row.priority, entry)
    else
      quarantine(":due", entry)
    end
  end
  flush()
end

-- The claim algorithm of `lifecycle.storage.claims.ClaimDecisions`; a test holds the two equal. For each task that moves
-- the trigger, the id, and the fields `at`, `call` and `payload` as they were before the move.
local function claim()
  local worker, now, lease_end, hold, limit, batchable, at, name = unpack(request, 1, 8)
  local batchable_names
  if batchable then
    batchable_names = {}
    for _, function_name in ipairs(batchable) do batchable_names[function_name] = true end
  end
  promote_due(now)
  local claims, count, started = {}, 0, false
  while count < limit do
    local entries = call("ZRANGE", prefix .. ":ready", 0, limit - count - 1)
    if #entries == 0 then return claims end
    for _, entry in ipairs(entries) do
      local id = string.sub(entry, 17)
      local fields = call("HMGET", prefix .. ":task:" .. id, "at", "call", "payload", "history")
      local row = parse_row(id, fields[1], fields[4])
      if not row or not parse_call(row, fields[2]) then
        quarantine(":ready", entry)
      else
        row.entry = entry
        local own, of_function = revocation("t" .. id), revocation("f" .. row.name)
        local trigger = admit(row, own, of_function, now)
        if trigger == nil then -- the clock was set back after the task had become due: the task waits on
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
          local target = target_of(row.state, trigger)
          local attempt = starts and row.attempt + 1 or row.attempt
          local lease = (starts or (hold and KINDS[target] == "waiting")) and lease_end
          apply_move(row, {
            target, 1, history_line(target, attempt, at, name), worker, attempt, row.retries, row.interruptions,
            not starts and row.eta, lease, now,
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
end)
