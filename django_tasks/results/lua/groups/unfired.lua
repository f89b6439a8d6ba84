#!lua flags=allow-oom
-- ARGV: for how many microseconds what follows a group must have been outstanding, how many groups at most. Returns
-- their ids, each with what is told of it. Nobody else gets them for as long.
local ids = redis.call('ZRANGE', UNFIRED, '-inf', now - ARGV[1], 'BYSCORE', 'LIMIT', 0, ARGV[2])
local given = {}
for _, id in ipairs(ids) do
  if redis.call('EXISTS', key_of(id)) == 1 then
    redis.call('ZADD', UNFIRED, stamp, id)
    given[#given + 1] = { id, told(id) }
  else
    redis.call('ZREM', UNFIRED, id)
  end
end
return given
