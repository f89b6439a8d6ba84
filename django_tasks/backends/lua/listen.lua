#!lua flags=allow-oom
-- ARGV: seconds for which whoever asks wants to be told, if it waits.
-- Returns for each queue when something became ready last, or nothing; and in the end the milliseconds until the next
-- one is due of all queues, or nothing.
local said, due = {}, math.huge
for i = 2, #KEYS do
  local q = queue(KEYS[i])
  promote(q)
  redis.call('SET', q.asleep, 1, 'EX', ARGV[1])
  said[#said + 1] = redis.call('GET', q.arrived) or ''
  for _, place in ipairs({ 'delayed', 'leased' }) do
    local first = redis.call('ZRANGE', q[place], 0, 0, 'WITHSCORES')[2]
    due = math.min(due, tonumber(first or math.huge))
  end
end
said[#said + 1] = due < math.huge and string.format('%.3f', due - now) or ''
return said
