#!lua flags=allow-oom
-- ARGV: '1' to leave a mark, by whose number it is seen later whether anything was lost.
-- Returns that number, or the one that it would have, when the last one was left, or nothing, and what time it is.
local key, leave = shared .. 'mark', ARGV[1] == '1'
local last = redis.call('HGET', key, 'at') or ''
if not leave then
  return { (tonumber(redis.call('HGET', key, 'number')) or 0) + 1, last, stamp }
end
local number = redis.call('HINCRBY', key, 'number', 1)
redis.call('HSET', key, 'at', stamp)
return { number, last, stamp }
