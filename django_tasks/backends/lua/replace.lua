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
local messages, flags, gone = intake(), {}, {}
for i = names + 1, #ARGV, 7 do
  local q = queue(KEYS[ARGV[i] + 1])
  local held = held_of(q, i + 1, i + 1, flags)
  if #held > 0 then
    redis.call('ZREM', q.leased, held[1])
    gone[#gone + 1] = string.sub(held[1], 33)
    messages.add(tonumber(ARGV[i + 2]), ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6])
  end
end
each('HDEL', TRIES, gone)
each('HDEL', MESSAGES, gone)
messages.place_all()
return table.concat(flags)
