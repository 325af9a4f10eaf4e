-- Empty the queue. The counter of sequence numbers stays: with a used number, an old copy would pass for a new task.
return once(function()
  for _, set in ipairs({":running", ":kept"}) do
    for _, entry in ipairs(call("ZRANGE", prefix .. set, 0, -1)) do
      local row = load_row(string.sub(entry, 17), true)
      if row then call("UNLINK", prefix .. ":worker:" .. row.worker) end
      call("UNLINK", prefix .. ":task:" .. string.sub(entry, 17))
    end
  end
  for _, id in ipairs(call("ZRANGE", prefix .. ":damaged", 0, -1)) do call("UNLINK", prefix .. ":task:" .. id) end
  for _, member in ipairs(call("ZRANGEBYSCORE", prefix .. ":index", "+inf", "+inf")) do
    for state in string.gmatch("$STORED", "[^|]+") do
      local set = prefix .. ":state:" .. state .. ":" .. string.sub(member, 2)
      local ids = call("ZRANGE", set, 0, -1)
      for n, id in ipairs(ids) do ids[n] = prefix .. ":task:" .. id end
      for from = 1, #ids, 4000 do call("UNLINK", unpack(ids, from, math.min(from + 3999, #ids))) end
      call("UNLINK", set)
    end
  end
  for state in string.gmatch("$STORED", "[^|]+") do call("UNLINK", prefix .. ":ended:" .. state) end
  for _, name in ipairs(call("SMEMBERS", prefix .. ":aside")) do call("UNLINK", prefix .. ":aside:" .. name) end
  for _, set in ipairs({"ready", "aside", "due", "kept", "running", "ended", "damaged", "canceling", "revocations", "locks", "periodic", "index", "awaits"}) do
    call("UNLINK", prefix .. ":" .. set)
  end
  changed.work, changed.outcome = true, true
  return 1
end, true)
