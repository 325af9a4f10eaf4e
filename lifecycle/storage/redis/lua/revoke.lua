-- Store a revocation of a task or a function, or delete it (the packed revocation is nil). Deleting returns 0 if there
-- was none, or if the task is revoked for good.
local field, packed, id, now = unpack(args, 4, 7)

return once(function()
  local existed = call("HEXISTS", prefix .. ":revocations", field)
  if packed then
    call("HSET", prefix .. ":revocations", field, packed)
  elseif existed == 1 then
    call("HDEL", prefix .. ":revocations", field)
  else
    return 0
  end
  any_revoked = nil
  local row = id and load_row(id)
  if row and KINDS[row.state] == "waiting" and not row.lease then make_claimable(row, now) end
  return row and row.state == "$REVOKED" and 0 or 1
end, not packed)
