-- Stored tasks: their sets, and how a new task is inserted.
--
-- A task is a hash: `call` (name, priority, expiry, retry policy, timeout, time of the enqueueing, and the step in a
-- workflow; never changed), `at` (state, worker, lease, …, the name again, and the verdict), `payload`, `history`,
-- `result`. `call` and `at` are MessagePack arrays; a missing value is nil in `call` and false in `at`. The last value of
-- either is there only in steps of workflows: `at` tells whether a task is a step. The hash `awaits` has for each task
-- that waits for others the number of ends that are missing, until its verdict. A task is in one set by its state and
-- its function, ordered by age, and in one set by its next step: ready, due, kept (held while it waits) or, for each
-- resting state, ended. A running task is in the set `running` only. Entries of the second
-- kind of set begin with the sequence number, sixteen digits, so that entries with equal scores are ordered by age.
--
-- The set `index` has the names of the functions after an equals sign, with an infinite score, and for each block of 256
-- sequence numbers the time of the latest enqueueing, or a second more: pages by time look only at blocks with later tasks.
--
-- A task that a claim was told to skip is moved from `ready` to `aside:` and the name of its function, so that the next
-- claim of such a worker does not look at it again. The set `aside` has those names. Claims of other workers take the
-- foremost task of all these sets. If the task expires, it is in `due`, too: then any claim ends it.

-- The set of a task by state and function. A task whose function cannot be read is in a set without a name.
local function state_set(row)
  return ":state:" .. row.state .. ":" .. (row.name or "")
end

-- Names and blocks of this call that are in the index, with their scores.
local indexed = {}

-- Add a new task to the sets that look-ups begin with. The time of a block is rounded up: most tasks leave it as it is.
local function add_to_look_ups(row, enqueued)
  change("ZADD", state_set(row), row.seq, row.id)
  local name, block, latest = "=" .. (row.name or ""), math.floor(row.seq / 256), math.ceil(enqueued)
  if indexed[name] and latest <= (indexed[block] or latest - 1) then return end
  call("ZADD", prefix .. ":index", "GT", "+inf", name, latest, block)
  indexed[name], indexed[block] = true, latest
end

local any_revoked, any_aside

-- Count the keys that exist among these, the revocations and the tasks that are set aside: usually there are none.
local function count_rarities(...)
  local count = call("EXISTS", prefix .. ":revocations", prefix .. ":aside", ...)
  if count == 0 then any_revoked, any_aside = false, false end
  return count
end

-- Find out, once in a call, whether there are revocations, and tasks that are set aside: usually neither.
local function look_up_rarities()
  local revocations, aside = prefix .. ":revocations", prefix .. ":aside"
  local found = call("EXISTS", revocations, aside)
  any_revoked, any_aside = found == 2, found == 2
  if found == 1 then
    any_revoked = call("EXISTS", revocations) == 1
    any_aside = not any_revoked
  end
end

local function revocation(field)
  if any_revoked == nil then look_up_rarities() end
  local packed = any_revoked and call("HGET", prefix .. ":revocations", field)
  return packed and cmsgpack.unpack(packed) or nil
end

local function pack_row(row)
  local name = row.name
  if row.verdict ~= nil then name = name or false end -- no hole before the verdict
  return cmsgpack.pack({
    row.state, row.version, row.worker, row.seq, row.attempt, row.retries, row.interruptions, row.eta, row.lease,
    row.canceling, name, row.verdict,
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
    change("ZADD", KINDS[row.state] == "running" and ":running" or ":kept", row.lease, set_entry(row))
    if not row.is_at_worker then change("SADD", ":worker:" .. row.worker, row.id) end
  elseif KINDS[row.state] == "waiting" then
    local rank, due = visibility(row, own, now)
    if rank then
      change("ZADD", ":ready", -rank, set_entry(row))
    else
      change("ZADD", ":due", due, set_entry(row))
    end
    changed.work = true
  else
    change("ZADD", ":ended:" .. row.state, now, set_entry(row))
  end
end

-- Insert a new task; return its sequence number. A new task is {id, call, payload, move, priority, expires, name}, and
-- for a step of a workflow also the number of tasks that it waits for, and `expires_after` of its retry policy.
local function insert_task(new_task)
  local move = new_task[4]
  local row = {
    id = new_task[1], state = move[1], version = move[2], worker = move[4], seq = call("INCR", prefix .. ":seq"),
    attempt = move[5], retries = move[6], interruptions = move[7], eta = move[8], lease = move[9], canceling = false,
    priority = new_task[5], expires = new_task[6], name = new_task[7],
  }
  if new_task[8] then
    row.verdict, row.awaits, row.expires_after = false, new_task[8], new_task[9]
    if row.awaits > 0 then call("HSET", prefix .. ":awaits", row.id, row.awaits) end
  end
  call(
    "HSET", prefix .. ":task:" .. row.id, "call", new_task[2], "at", pack_row(row), "payload", new_task[3],
    "history", move[3]
  )
  add_to_look_ups(row, move[10])
  add_to_sets(row, revocation("t" .. row.id), move[10])
  return row.seq
end
