-- Recover tasks whose leases have lapsed: {for each task that moved its id and its fields before the move, ids of damaged
-- tasks}.
local now, worker, hold_until, max_interruptions, of_functions, limit, at, name, cursor = unpack(args, 4, 12)
of_many = true

return once(function()
  local lapsed = {}
  for _, set in ipairs({":running", ":kept"}) do
    local entries = call("ZRANGEBYSCORE", prefix .. set, "-inf", now, "WITHSCORES", "LIMIT", 0, limit)
    for n = 1, #entries, 2 do lapsed[#lapsed + 1] = {tonumber(entries[n + 1]), entries[n], set} end
  end
  table.sort(lapsed, function(a, b)
    if a[1] ~= b[1] then return a[1] < b[1] end
    return a[2] < b[2]
  end)
  local claims = {}
  for n = 1, math.min(limit, #lapsed) do
    local entry, id = lapsed[n][2], string.sub(lapsed[n][2], 17)
    local fields = call("HMGET", prefix .. ":task:" .. id, "at", "call", "payload", "history")
    local row = parse_row(id, fields[1], fields[4])
    if not row or not parse_call(row, fields[2]) then
      quarantine(lapsed[n][3], entry)
      if row then call("SREM", prefix .. ":worker:" .. row.worker, id) end -- else a heartbeat would add the entry again
    elseif KINDS[row.state] == "waiting" then
      make_claimable(row, now)
    else
      local allowed_count = of_functions[row.name] or max_interruptions
      local target, history, path = row.state, "", recovery_path(row, allowed_count)
      for _, trigger in ipairs(path) do
        target = target_of(target, trigger)
        history = history .. history_line(target, row.attempt, at, name)
      end
      local interruptions = row.interruptions + (path[1] == "$INTERRUPT" and 1 or 0)
      local pause = KINDS[target] == "waiting" and interruption_pause(interruptions) or 0
      apply_move(row, {
        target, #path, history, worker, row.attempt, row.retries, interruptions,
        pause > 0 and now + pause or (path[1] == "$INTERRUPT" and row.expires_after and now) or row.eta,
        KINDS[target] == "waiting" and hold_until or false, now, nil, true,
      })
      for _, value in ipairs({id, fields[1], fields[2], fields[3] or ""}) do claims[#claims + 1] = value end
    end
  end
  -- Delete the kept answers of processes that ended more than a day ago: no client asks for them any more.
  local today = tonumber(call("TIME")[1])
  local slots = call("HSCAN", prefix .. ":answers", cursor, "COUNT", 20)[2]
  for n = 1, #slots, 2 do
    local since = tonumber(string.match(slots[n], "^(%d+)-"))
    if not since or since + 86400 < today then call("HDEL", prefix .. ":answers", slots[n]) end
  end
  return {claims, damaged}
end, true)
