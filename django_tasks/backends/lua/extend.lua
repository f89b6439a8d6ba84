#!lua flags=allow-oom
-- ARGV: milliseconds of the lease, then receipts, as for `change_held`.
local until_then = now + tonumber(ARGV[1])
return change_held(2, function(q, members)
  local renewed = {}
  for _, member in ipairs(members) do
    renewed[#renewed + 1], renewed[#renewed + 2] = until_then, member
  end
  each('ZADD', q.leased, renewed)
end)
