-- Prolong the leases of certain workers, on tasks and locks; return the number of tasks.
of_many = true
return once(function()
  local workers, lease_end, count = {}, args[5], 0
  for _, worker in ipairs(args[4]) do
    if not workers[worker] then
      workers[worker] = true
      for _, id in ipairs(call("SMEMBERS", prefix .. ":worker:" .. worker)) do
        local row = load_row(id, true)
        if row and row.lease and row.worker == worker then
          row.lease = lease_end
          change("ZADD", KINDS[row.state] == "running" and ":running" or ":kept", lease_end, set_entry(row))
          call("HSET", prefix .. ":task:" .. id, "at", pack_row(row))
          count = count + 1
        else
          call("SREM", prefix .. ":worker:" .. worker, id)
        end
      end
    end
  end
  local locks = call("HGETALL", prefix .. ":locks")
  for n = 1, #locks, 2 do
    local lock = cmsgpack.unpack(locks[n + 1])
    if lock[3] and workers[lock[3]] then
      lock[2] = lease_end
      call("HSET", prefix .. ":locks", locks[n], cmsgpack.pack(lock))
    end
  end
  return count
end, true)
