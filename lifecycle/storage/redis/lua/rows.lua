-- Where tasks are, and how new ones come there.
--
-- A task is a hash: `call` (what was asked for; never changed), `at` (where it stands), `payload`, `history`, `result`.
-- `call` and `at` are MessagePack arrays; what is not there is nil in the first, false in the second. A task stands in
-- one set by its state (by age), and in one by what is to be done with it: ready, due, kept or ended; if it runs, in the
-- set `running` only. Entries
-- of those begin with its age, sixteen digits, so that equal scores go by age.

local any_revoked

local function revocation(field)
  if any_revoked == nil then any_revoked = call("EXISTS", P .. ":revocations") == 1 end
  local said = any_revoked and call("HGET", P .. ":revocations", field)
  return said and cmsgpack.unpack(said) or nil
end

local function packed(row)
  return cmsgpack.pack({
    row.state, row.version, row.worker, row.seq, row.attempt, row.retries, row.interruptions, row.eta, row.lease,
    row.canceling,
  })
end

-- Cached, since it is asked for twice as a row moves.
local function entry(row)
  row.entry = row.entry or string.format("%016d", row.seq) .. row.id
  return row.entry
end

-- Into the set where it is to be found from now on; `own`: what is revoked of it.
local function enter(row, own, now)
  if row.lease then
    later(put, KINDS[row.state] == "running" and ":running" or ":kept", row.lease, entry(row))
    later(take, ":worker:" .. row.worker, row.id)
  elseif KINDS[row.state] == "waiting" then
    local rank, due = visibility(row, own, now)
    if rank then
      later(put, ":ready", -rank, entry(row))
    else
      later(put, ":due", due, entry(row))
    end
    news.work = true
  else
    later(put, ":ended", now, entry(row))
  end
end

-- A new task: {id, call, payload, move, priority, expires, name}; its place.
local function bear(born)
  local made = born[4]
  local row = {
    id = born[1], state = made[1], version = made[2], worker = made[4], seq = call("INCR", P .. ":seq"),
    attempt = made[5], retries = made[6], interruptions = made[7], eta = made[8], lease = made[9], canceling = false,
    priority = born[5], expires = born[6],
  }
  call("HSET", P .. ":task:" .. row.id, "call", born[2], "at", packed(row), "payload", born[3], "history", made[3])
  later(put, ":state:" .. row.state, row.seq, row.id)
  enter(row, revocation("t" .. row.id), made[10])
  return row.seq
end
