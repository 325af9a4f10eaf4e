-- Prolong all that some workers hold, tasks and locks; how many tasks.
return once(function()
  local workers, till, count = {}, A[5], 0
  for _, worker in ipairs(A[4]) do
    if not workers[worker] then
      workers[worker] = true
      for _, id in ipairs(call("SMEMBERS", P .. ":worker:" .. worker)) do
        local row = load(id, true)
        if row and row.lease and row.worker == worker then
          row.lease = till
          later(put, KINDS[row.state] == "running" and ":running" or ":kept", till, entry(row))
          call("HSET", P .. ":task:" .. id, "at", packed(row))
          count = count + 1
        else
          call("SREM", P .. ":worker:" .. worker, id)
        end
      end
    end
  end
  local locks = call("HGETALL", P .. ":locks")
  for n = 1, #locks, 2 do
    local lock = cmsgpack.unpack(locks[n + 1])
    if lock[3] and workers[lock[3]] then
      lock[2] = till
      call("HSET", P .. ":locks", locks[n], cmsgpack.pack(lock))
    end
  end
  return count
end)
