#!lua flags=allow-oom
-- Leaves a mark, by whose number it is seen later whether anything was lost. Returns that, when the last one was left, or
-- nothing, and what time it is.
local key = shared .. 'mark'
local number = redis.call('HINCRBY', key, 'number', 1)
local last = redis.call('HGET', key, 'at') or ''
redis.call('HSET', key, 'at', stamp)
return { number, last, stamp }
