#!lua flags=no-writes
-- ARGV: ids. Returns of each its size, when it ended, the number and the part of the first member that failed or
-- which are missing, and how many have ended.
local found = {}
for i, id in ipairs(ARGV) do
  local known = redis.call('HMGET', key_of(id), 'n', 'e', 'x', 'w', 'm', 'c')
  local size = size_of(known[1], known[6])
  known[1] = size and string.format('%.0f', size) or false
  known[6] = redis.call('HLEN', parts_of(id))
  found[i] = known
end
return found
