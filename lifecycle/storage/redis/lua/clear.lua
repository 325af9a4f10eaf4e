-- Empty the queue. Places are never used again, or an old copy would pass for a new task.
return once(function()
  for _, set in ipairs({":running", ":kept"}) do
    for _, found in ipairs(call("ZRANGE", P .. set, 0, -1)) do
      local row = load(string.sub(found, 17), true)
      if row then call("UNLINK", P .. ":worker:" .. row.worker) end
      call("UNLINK", P .. ":task:" .. string.sub(found, 17))
    end
  end
  for _, id in ipairs(call("ZRANGE", P .. ":damaged", 0, -1)) do call("UNLINK", P .. ":task:" .. id) end
  for state in string.gmatch("$STORED", "[^|]+") do
    local ids = call("ZRANGE", P .. ":state:" .. state, 0, -1)
    for n, id in ipairs(ids) do ids[n] = P .. ":task:" .. id end
    for from = 1, #ids, 4000 do call("UNLINK", unpack(ids, from, math.min(from + 3999, #ids))) end
    call("UNLINK", P .. ":state:" .. state)
  end
  for _, set in ipairs({"ready", "due", "kept", "running", "ended", "damaged", "canceling", "revocations", "locks"}) do
    call("UNLINK", P .. ":" .. set)
  end
  news.work, news.outcome = true, true
  return 1
end)
