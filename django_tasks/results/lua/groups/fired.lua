#!lua flags=allow-oom
-- ARGV: milliseconds that a group is kept which has ended, 0 for ever; then ids. What follows these has been sent: from
-- now on they may go.
local kept = tonumber(ARGV[1])
for i = 2, #ARGV do
  local id = ARGV[i]
  if redis.call('ZREM', UNFIRED, id) == 1 then
    local ended = redis.call('HGET', key_of(id), 'e')
    if ended then
      redis.call('ZADD', ENDED, ended, id)
    end
    if kept > 0 then
      redis.call('PEXPIRE', key_of(id), kept)
      redis.call('PEXPIRE', parts_of(id), kept)
    end
  end
end
