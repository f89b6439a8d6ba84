#!lua flags=allow-oom
-- ARGV: how many to remove at most. Returns how many were.
local limit, q = tonumber(ARGV[1]), queue(KEYS[2])
local ids = redis.call('ZRANGE', q.ready, 0, limit - 1)
each('ZREM', q.ready, ids)
each('ZREM', q.since, ids)
if #ids < limit then
  local members = redis.call('ZRANGE', q.delayed, 0, limit - #ids - 1)
  each('ZREM', q.delayed, members)
  for _, member in ipairs(members) do
    ids[#ids + 1] = select(2, parts(member))
  end
end
each('HDEL', TRIES, ids)
each('HDEL', MESSAGES, ids)
return #ids
