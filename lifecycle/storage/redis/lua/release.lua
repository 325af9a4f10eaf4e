-- Stop holding waiting tasks; for each task 1, or 0 if the caller did not hold the task any more.
return once(function()
  local freed = {}
  for n, fence in ipairs(args[4]) do
    local row = load_row(fence[$FENCE_ID])
    local free = fence_matches(row, fence) and row.lease and KINDS[row.state] == "waiting"
    if free then
      make_claimable(row, args[5])
      flush()
    end
    freed[n] = free and 1 or 0
  end
  return freed
end, true)
