#!lua
-- ARGV: milliseconds that a group is kept which has ended, and one which has not, 0 for ever; then for each group its
-- id, '1' if none of its members will run, microseconds of its time or nothing, the number of values that follow, and a name and a value for each thing that
-- it says. One that is there stays as it is, but for its time.
local kept_ended, kept_open = tonumber(ARGV[1]), tonumber(ARGV[2])
local i = 3
while i <= #ARGV do
  local id, over, limit, count = ARGV[i], ARGV[i + 1] == '1', ARGV[i + 2], tonumber(ARGV[i + 3])
  if opened(id, over and kept_ended or kept_open, i + 4, i + 3 + count) and over then
    redis.call('HSET', key_of(id), 'e', stamp)
    redis.call('ZADD', ENDED, stamp, id)
  end
  if limit ~= '' and redis.call('HEXISTS', key_of(id), 'e') == 0 then
    redis.call('ZADD', LIMITED, 'NX', string.format('%.0f', now + limit), id)
  end
  i = i + 4 + count
end
