#!lua
-- ARGV: id, a name. Adds a member to a group unless one of that name was added before; returns its number. Nothing for a
-- group that is not known, or has ended without a member of that name.
local key, name = key_of(ARGV[1]), '+' .. ARGV[2]
local said, added, ended, number = unpack(redis.call('HMGET', key, 'n', 'c', 'e', name))
if number then
  return tonumber(number)
end
local size = size_of(said, added)
if not size or ended then
  return false
end
redis.call('HSET', key, name, string.format('%.0f', size))
redis.call('HINCRBY', key, 'c', 1)
return size
