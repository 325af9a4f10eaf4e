-- Stored tasks: their sets, and how a new task is inserted.
--
-- A task is a hash: `call` (name, priority, expiry, retry policy, timeout, time
-- of the enqueueing; never changed), `at` (state, worker, lease,
-- …), `payload`, `history`, `result`. `call` and `at` are MessagePack arrays; a missing value is nil in `call` and
-- false in `at`. A task is in one set by its state, ordered by age, and in one set by its next step: ready, due, kept
-- (held while it waits) or ended. A running task is in the set `running` only. Entries of the second kind of set begin
-- with the sequence number, sixteen digits, so that entries with equal scores are ordered by age.

local any_revoked

local function revocation(field)
  if any_revoked == nil then any_revoked = call("EXISTS", prefix .. ":revocations") == 1 end
  local packed = any_revoked and call("HGET", prefix .. ":revocations", field)
  return packed and cmsgpack.unpack(packed) or nil
end

local function pack_row(row)
  return cmsgpack.pack({
    row.state, row.version, row.worker, row.seq, row.attempt, row.retries, row.interruptions, row.eta, row.lease,
    row.canceling,
  })
end

-- Entry of a task in the sets; cached, since a move needs the entry twice.
local function set_entry(row)
  row.entry = row.entry or string.format("%016d", row.seq) .. row.id
  return row.entry
end

-- Add a task to the set of its next step. `own`: the revocation of the task itself, if any.
local function add_to_sets(row, own, now)
  if row.lease then
    defer(zadds, KINDS[row.state] == "running" and ":running" or ":kept", row.lease, set_entry(row))
    defer(sadds, ":worker:" .. row.worker, row.id)
  elseif KINDS[row.state] == "waiting" then
    local rank, due = visibility(row, own, now)
    if rank then
      defer(zadds, ":ready", -rank, set_entry(row))
    else
      defer(zadds, ":due", due, set_entry(row))
    end
    changed.work = true
  else
    defer(zadds, ":ended", now, set_entry(row))
  end
end

-- Insert a new task {id, call, payload, move, priority, expires}; return its sequence number.
local function insert_task(new_task)
  local move = new_task[4]
  local row = {
    id = new_task[1], state = move[1], version = move[2], worker = move[4], seq = call("INCR", prefix .. ":seq"),
    attempt = move[5], retries = move[6], interruptions = move[7], eta = move[8], lease = move[9], canceling = false,
    priority = new_task[5], expires = new_task[6],
  }
  call(
    "HSET", prefix .. ":task:" .. row.id, "call", new_task[2], "at", pack_row(row), "payload", new_task[3],
    "history", move[3]
  )
  defer(zadds, ":state:" .. row.state, row.seq, row.id)
  add_to_sets(row, revocation("t" .. row.id), move[10])
  return row.seq
end
