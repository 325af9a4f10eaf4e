-- Delete tasks that came to rest before a moment, oldest first; return the number of tasks.
return once(function()
  local before = "(" .. string.format("%.17g", args[4])
  local entries = call("ZRANGEBYSCORE", prefix .. ":ended", "-inf", before, "LIMIT", 0, args[5])
  for _, entry in ipairs(entries) do
    local id = string.sub(entry, 17)
    local row = load_row(id, true)
    for state in string.gmatch(row and "|" .. row.state .. "|" or "$STORED", "[^|]+") do
      defer(zrems, ":state:" .. state, id)
    end
    defer(zrems, ":ended", entry)
    call("UNLINK", prefix .. ":task:" .. id)
    call("HDEL", prefix .. ":revocations", "t" .. id)
  end
  return #entries
end, true)
