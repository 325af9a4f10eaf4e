-- Remember, or forget (nothing is said), that a task or a function shall not run: whether it was so, and still is, undone.
local field, said, id, now = unpack(A, 4, 7)

return once(function()
  local there = call("HEXISTS", P .. ":revocations", field)
  if said then
    call("HSET", P .. ":revocations", field, said)
  elseif there == 1 then
    call("HDEL", P .. ":revocations", field)
  else
    return 0
  end
  any_revoked = nil
  local row = id and load(id)
  if row and KINDS[row.state] == "waiting" and not row.lease then let_go(row, now) end
  return row and row.state == "$REVOKED" and 0 or 1 -- that cannot be taken back
end)
