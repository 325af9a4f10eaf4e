-- Settle what is done and claim what is next: {whether each took, the places of its follow-ups, claims, what is damaged}.
local done, claimant = A[4], A[5]

-- Before anything is written: a script that fails is not undone. A move that follows another one of this call is held
-- against what that leaves.
local rows, left = {}, {}
for _, one in ipairs(done) do
  local id, target = one[1], one[6][1]
  if rows[id] == nil then rows[id] = load(id, true) or false end
  local row = left[id] or rows[id]
  if same(row, one) then
    if not allowed(row.state, target) then
      return redis.error_reply("ILLEGAL from " .. row.state .. " to " .. target)
    end
    left[id] = {state = target, version = row.version + one[6][2], worker = one[6][4], seq = row.seq}
    if KINDS[target] == "waiting" and not ask(rows[id], call("HGET", P .. ":task:" .. id, "call")) then
      rows[id], left[id] = false, nil
    end
  end
end

local function settle(one)
  local row = rows[one[1]]
  if not same(row, one) then return 0, {} end
  move(row, one[6])
  local places = {}
  for n, born in ipairs(one[7]) do
    places[n] = call("EXISTS", P .. ":task:" .. born[1]) == 0 and bear(born)
  end
  return 1, places
end

local function ripen(now)
  for _, found in ipairs(call("ZRANGEBYSCORE", P .. ":due", "-inf", now, "LIMIT", 0, $PROMOTE_LIMIT)) do
    local row = load(string.sub(found, 17))
    if row then
      later(drop, ":due", found)
      later(put, ":ready", -row.priority, found)
    else
      set_aside(":due", found)
    end
  end
  flush()
end

local function claim()
  local worker, now, till, hold, limit, ahead, at, name = unpack(claimant, 1, 8)
  local together
  if ahead then
    together = {}
    for _, quick in ipairs(ahead) do together[quick] = true end
  end
  ripen(now)
  local claims, count, started = {}, 0, false
  while count < limit do
    local foremost = call("ZRANGE", P .. ":ready", 0, limit - count - 1)
    if #foremost == 0 then return claims end
    for _, found in ipairs(foremost) do
      local id = string.sub(found, 17)
      local fields = call("HMGET", P .. ":task:" .. id, "at", "call", "payload", "history")
      local row = row_of(id, fields[1], fields[4])
      if not row or not ask(row, fields[2]) then
        set_aside(":ready", found)
      else
        row.entry = found
        local own, of_function = revocation("t" .. id), revocation("f" .. row.name)
        local trigger = admit(row, own, of_function, now)
        if trigger == nil then -- the clock stepped back since it became ready: it waits for its ETA again
          leave(row)
          enter(row, own, now)
        else
          local starts = trigger == "$START"
          local alone = starts and together and not together[row.name]
          if alone and started then return claims end
          started = started or starts
          if trigger == "$REVOKE" and of_function and of_function[2] and not revoked_when_due(row, own, now) then
            call("HDEL", P .. ":revocations", "f" .. row.name)
          end
          local target = after(row.state, trigger)
          local attempt = starts and row.attempt + 1 or row.attempt
          local lease = (starts or (hold and KINDS[target] == "waiting")) and till
          move(row, {
            target, 1, line(target, attempt, at, name), worker, attempt, row.retries, row.interruptions,
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
  local took, births = {}, {}
  for n, one in ipairs(done) do took[n], births[n] = settle(one) end
  flush()
  return {took, births, claimant and claim() or {}, damaged}
end)
