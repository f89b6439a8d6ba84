#!lua
-- ARGV: for each queue its name, or nothing for a queue whose name is kept elsewhere; then for each run of messages that
-- are alike the place of their queue among these, priority, delay and how many they are, and for each its id and the
-- message. Returns a flag for each message: '1' if its id was new.
local names = #KEYS - 1
for i = 1, names do
  if ARGV[i] ~= '' then
    redis.call('SADD', shared .. 'queues', ARGV[i])
  end
end
local messages = intake()
local at = names + 1
while at <= #ARGV do
  local place, priority, delay, count = tonumber(ARGV[at]), ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3])
  local last = at + 3 + 2 * count
  for i = at + 4, last, 2 do
    messages.add(place, ARGV[i], priority, delay, ARGV[i + 1])
  end
  at = last + 1
end
return messages.place_all()
