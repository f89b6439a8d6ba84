#!lua
-- ARGV: milliseconds that a group is kept which has ended, and one which has not, 0 for ever; then for each group its
-- id, '1' if none of its members will run, the number of values that follow, and a name and a value for each thing that
-- it says. One that is there stays as it is.
local kept_ended, kept_open = tonumber(ARGV[1]), tonumber(ARGV[2])
local i = 3
while i <= #ARGV do
  local id, over, count = ARGV[i], ARGV[i + 1] == '1', tonumber(ARGV[i + 2])
  if opened(id, over and kept_ended or kept_open, i + 3, i + 2 + count) and over then
    redis.call('HSET', key_of(id), 'e', stamp)
    redis.call('ZADD', ENDED, stamp, id)
  end
  i = i + 3 + count
end
