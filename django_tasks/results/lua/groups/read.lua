#!lua flags=no-writes
-- ARGV: id, the number of a member, how many from there on. Returns the size of the group, '1' if a member failed, how
-- many have ended, and what is kept of each that was asked for, or fewer if that is much. Nothing of a group that is
-- not known.
local BYTES = 16 * 1024 * 1024 -- after so many no more are read, lest this server holds its breath
local id, first = ARGV[1], tonumber(ARGV[2])
local said, failed, added = unpack(redis.call('HMGET', key_of(id), 'n', 'x', 'c'))
local size = size_of(said, added)
if not size then
  return {}
end
local stop, bytes, found = math.min(first + tonumber(ARGV[3]), size), 0, {}
while first < stop and bytes < BYTES do
  local numbers = {}
  for number = first, math.min(first + PIECE, stop) - 1 do
    numbers[#numbers + 1] = number
  end
  for _, part in ipairs(redis.call('HMGET', parts_of(id), unpack(numbers))) do
    found[#found + 1] = part
    bytes = bytes + (part and #part or 0)
  end
  first = first + #numbers
end
return { size, failed and '1' or '', redis.call('HLEN', parts_of(id)), found }
