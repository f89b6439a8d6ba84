#!lua flags=allow-oom
-- ARGV: milliseconds of the lease, then receipts, as for `change_held`.
local ends = string.format('%.3f', now + tonumber(ARGV[1]))
return change_held(2, function(q, held)
  local renewed = {}
  for i, receipt in ipairs(held) do
    renewed[2 * i - 1], renewed[2 * i] = ends, receipt
  end
  each('ZADD', q.leased, renewed)
end)
