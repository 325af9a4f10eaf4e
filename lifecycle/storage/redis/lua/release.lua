-- Stop holding waiting tasks: for each, whether it was still held.
return once(function()
  local freed = {}
  for n, known in ipairs(A[4]) do
    local row = load(known[1])
    local free = same(row, known) and row.lease and KINDS[row.state] == "waiting"
    if free then
      let_go(row, A[5])
      flush()
    end
    freed[n] = free and 1 or 0
  end
  return freed
end)
