#!lua
-- ARGV: for each queue its name, or nothing for a queue whose name is kept elsewhere; then for each message the place
-- of its queue among these, id, priority, delay, message. Returns a flag for each message: '1' if its id was new.
local names = #KEYS - 1
for i = 1, names do
  if ARGV[i] ~= '' then
    redis.call('SADD', shared .. 'queues', ARGV[i])
  end
end
local messages = intake()
for i = names + 1, #ARGV, 5 do
  messages.add(tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4])
end
return messages.place_all()
