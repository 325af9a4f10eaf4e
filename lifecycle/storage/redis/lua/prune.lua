-- Delete tasks that came to rest before a moment, the oldest first; how many.
return once(function()
  local gone = call("ZRANGEBYSCORE", P .. ":ended", "-inf", "(" .. string.format("%.17g", A[4]), "LIMIT", 0, A[5])
  for _, found in ipairs(gone) do
    local id = string.sub(found, 17)
    local row = load(id, true)
    for state in string.gmatch(row and "|" .. row.state .. "|" or "$STORED", "[^|]+") do
      later(drop, ":state:" .. state, id)
    end
    later(drop, ":ended", found)
    call("UNLINK", P .. ":task:" .. id)
    call("HDEL", P .. ":revocations", "t" .. id)
  end
  return #gone
end)
