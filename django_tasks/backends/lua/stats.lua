#!lua flags=allow-oom
-- ARGV: for each queue its name if it is to be forgotten when it is empty, or nothing.
-- Returns for each queue: ready, delayed, leased, and milliseconds that the oldest ready one has been waiting.
local LOOKS = 100 -- messages of one priority that are looked at for one that never came back

-- Returns the time of the oldest of those that are ready since their publication: at the head of each priority.
local function oldest_fresh(q)
  local oldest, from = now, '-inf'
  while true do
    local head = redis.call('ZRANGE', q.ready, from, '+inf', 'BYSCORE', 'LIMIT', 0, LOOKS, 'WITHSCORES')
    if #head == 0 then
      return oldest
    end
    local band_end = (math.floor(head[2] / 2 ^ 44) + 1) * 2 ^ 44
    for i = 1, #head, 2 do
      if tonumber(head[i + 1]) >= band_end then
        break
      end
      if not redis.call('ZSCORE', q.since, head[i]) then
        local published = tonumber(string.sub(redis.call('HGET', MESSAGES, head[i]) or '', 17, 32))
        oldest = math.min(oldest, (published or now * 1000) / 1000)
        break
      end
    end
    from = band_end
  end
end

local said = {}
for i = 2, #KEYS do
  local q = queue(KEYS[i])
  local counts, oldest = { redis.call('ZCARD', q.ready) }, oldest_fresh(q)
  for _, place in ipairs({ 'delayed', 'leased' }) do
    local due = redis.call('ZCOUNT', q[place], '-inf', now)
    counts[1] = counts[1] + due
    counts[#counts + 1] = redis.call('ZCARD', q[place]) - due
  end
  for _, place in ipairs({ 'since', 'delayed', 'leased' }) do
    local first = redis.call('ZRANGE', q[place], 0, 0, 'WITHSCORES')[2]
    oldest = math.min(oldest, tonumber(first or now))
  end
  counts[#counts + 1] = string.format('%.3f', now - oldest)
  said[#said + 1] = counts
  if ARGV[i - 1] ~= '' and counts[1] + counts[2] + counts[3] == 0 then
    redis.call('SREM', shared .. 'queues', ARGV[i - 1])
  end
end
return said
