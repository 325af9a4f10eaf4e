-- Deal with leases that lapsed: {of each task that moved its id and fields as they were, what is damaged}.
local now, worker, hold, max_interruptions, limit, at, name, chance = unpack(A, 4, 11)

return once(function()
  local lapsed = {}
  for _, set in ipairs({":running", ":kept"}) do
    local found = call("ZRANGEBYSCORE", P .. set, "-inf", now, "WITHSCORES", "LIMIT", 0, limit)
    for n = 1, #found, 2 do lapsed[#lapsed + 1] = {tonumber(found[n + 1]), found[n], set} end
  end
  table.sort(lapsed, function(a, b)
    if a[1] ~= b[1] then return a[1] < b[1] end
    return a[2] < b[2]
  end)
  local claims = {}
  for n = 1, math.min(limit, #lapsed) do
    local found, id = lapsed[n][2], string.sub(lapsed[n][2], 17)
    local fields = call("HMGET", P .. ":task:" .. id, "at", "call", "payload", "history")
    local row = row_of(id, fields[1], fields[4])
    if not row or not ask(row, fields[2]) then
      set_aside(lapsed[n][3], found)
      if row then call("SREM", P .. ":worker:" .. row.worker, id) end -- or a heartbeat would bring it back
    elseif KINDS[row.state] == "waiting" then
      let_go(row, now)
    else
      local target, history, path = row.state, "", recovery(row, max_interruptions)
      for _, trigger in ipairs(path) do
        target = after(target, trigger)
        history = history .. line(target, row.attempt, at, name)
      end
      local interruptions = row.interruptions + (path[1] == "$INTERRUPT" and 1 or 0)
      move(row, {
        target, #path, history, worker, row.attempt, row.retries, interruptions, row.eta,
        KINDS[target] == "waiting" and hold or false, now, nil, true,
      })
      for _, value in ipairs({id, fields[1], fields[2], fields[3] or ""}) do claims[#claims + 1] = value end
    end
  end
  -- Answers that nobody will ask for again: of processes that have been gone for a day.
  local today = tonumber(call("TIME")[1])
  local slots = call("HSCAN", P .. ":answers", chance, "COUNT", 20)[2]
  for n = 1, #slots, 2 do
    local since = tonumber(string.match(slots[n], "^(%d+)-"))
    if not since or since + 86400 < today then call("HDEL", P .. ":answers", slots[n]) end
  end
  return {claims, damaged}
end)
