-- Request cancellation of a task; 1 if the task is running, else 0.
return once(function()
  local row = load_row(args[4], true)
  if not row or KINDS[row.state] ~= "running" then return 0 end
  if not row.canceling then
    row.canceling = true
    call("HSET", prefix .. ":task:" .. row.id, "at", pack_row(row))
    call("SADD", prefix .. ":canceling", row.id)
  end
  return 1
end, true)
