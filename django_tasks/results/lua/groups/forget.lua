#!lua flags=allow-oom
-- ARGV: ids. Returns how many were known.
local known = 0
for _, id in ipairs(ARGV) do
  known = known + redis.call('UNLINK', key_of(id))
  redis.call('UNLINK', parts_of(id))
  redis.call('ZREM', UNFIRED, id)
  redis.call('ZREM', ENDED, id)
  redis.call('ZREM', LIMITED, id)
end
return known
