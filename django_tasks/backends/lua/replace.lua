#!lua
-- ARGV: for each queue its name, or nothing, as for `publish`; then for each pair the place of the queue that it
-- leaves, the receipt, and of the message that comes instead the place of its queue, id, priority, delay, message.
-- Returns a flag for each pair.
local names = #KEYS - 1
for i = 1, names do
  if ARGV[i] ~= '' then
    redis.call('SADD', shared .. 'queues', ARGV[i])
  end
end
local messages, flags = intake(), {}
messages.expect((#ARGV - names) / 7)
for i = names + 1, #ARGV, 7 do
  local members, ids = held_of(i + 1, i + 1, flags)
  if #ids > 0 then
    redis.call('ZREM', KEYS[ARGV[i] + 1] .. 'leased', members[1])
    redis.call('HDEL', TOKENS, ids[1])
    redis.call('HDEL', TRIES, ids[1])
    redis.call('HDEL', MESSAGES, ids[1])
    messages.add(tonumber(ARGV[i + 2]), ARGV[i + 3], tonumber(ARGV[i + 4]), ARGV[i + 5], ARGV[i + 6])
  end
end
messages.place_all()
return table.concat(flags)
