#!lua
-- ARGV: milliseconds that a result is kept which is final, and one which is not, 0 for ever; then for each result its
-- id, when it ended if it did, '1' if it is final, the number of values that follow, and a name and a value for each
-- thing that it says. What an earlier result said and this one leaves out stays, but for what belongs to one state.
local OF_ONE_STATE = { 'v', 'f', 'm', 'h' }
local kept_final, kept_open = tonumber(ARGV[1]), tonumber(ARGV[2])
local i = 3
while i <= #ARGV do
  local id, ended, final, count = ARGV[i], ARGV[i + 1], ARGV[i + 2] == '1', tonumber(ARGV[i + 3])
  local key, known = key_of(id), false
  if redis.call('EXISTS', key) == 1 then
    known = redis.call('HEXISTS', key, FINAL) == 1
    if not known then
      redis.call('HDEL', key, unpack(OF_ONE_STATE))
    end
  end
  if not known then
    redis.call('HSET', key, unpack(ARGV, i + 4, i + 3 + count))
    local kept = final and kept_final or kept_open
    if kept > 0 then
      redis.call('PEXPIRE', key, kept)
    end
    if ended ~= '' then
      redis.call('ZADD', ENDED, ended, id)
    end
    if final then
      redis.call('PUBLISH', key, '')
    end
  end
  i = i + 4 + count
end
