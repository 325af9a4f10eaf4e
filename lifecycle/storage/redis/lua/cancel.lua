-- Note that a task is to be called off, if it runs: whether it does.
return once(function()
  local row = load(A[4], true)
  if not row or KINDS[row.state] ~= "running" then return 0 end
  if not row.canceling then
    row.canceling = true
    call("HSET", P .. ":task:" .. row.id, "at", packed(row))
    call("SADD", P .. ":canceling", row.id)
  end
  return 1
end)
