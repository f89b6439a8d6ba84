#!lua flags=allow-oom
-- ARGV: microseconds since the epoch, and how many at most. Removes groups that ended before that; returns how many,
-- and how many more have gone by themselves.
local ids = redis.call('ZRANGE', ENDED, '-inf', '(' .. ARGV[1], 'BYSCORE', 'LIMIT', 0, ARGV[2])
local removed = 0
for _, id in ipairs(ids) do
  removed = removed + redis.call('UNLINK', key_of(id))
  redis.call('UNLINK', parts_of(id))
end
for first = 1, #ids, PIECE do
  redis.call('ZREM', ENDED, unpack(ids, first, math.min(first + PIECE - 1, #ids)))
end
return { removed, #ids - removed }
