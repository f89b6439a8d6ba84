#!lua flags=no-writes
-- ARGV: how many. Returns the ids of up to so many that may be taken now and what is kept of each message; and then the
-- same of up to so many that are delayed.
local limit, q = tonumber(ARGV[1]), queue(KEYS[2])

local function kept(ids)
  local values = read(MESSAGES, ids)
  for i = 1, #ids do
    values[i] = values[i] or ''
  end
  return values
end

local function ids_in(members, place)
  local ids = {}
  for i, member in ipairs(members) do
    ids[i] = select(2, parts(member, place))
  end
  return ids
end

local ready = redis.call('ZRANGE', q.ready, 0, limit - 1)
for _, place in ipairs({ 'delayed', 'leased' }) do
  local due = redis.call('ZRANGE', q[place], '-inf', now, 'BYSCORE', 'LIMIT', 0, limit)
  for _, id in ipairs(ids_in(due, place)) do
    ready[#ready + 1] = id
  end
end
local from = '(' .. string.format('%.3f', now)
local later = ids_in(redis.call('ZRANGE', q.delayed, from, '+inf', 'BYSCORE', 'LIMIT', 0, limit), 'delayed')
return { ready, kept(ready), later, kept(later) }
