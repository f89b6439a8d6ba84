#!lua flags=no-writes
-- ARGV: how many. Returns as texts the entries of up to so many that may be taken now, each one's rank before it, and of
-- up to so many that are delayed.
local limit, q = tonumber(ARGV[1]), queue(KEYS[2])

local function written(ids, with_rank)
  local reply, values = {}, read(MESSAGES, ids)
  for i, id in ipairs(ids) do
    reply[i] = (with_rank and rank_of(values[i]) or '') .. entry(id, 0, values[i] or '')
  end
  return table.concat(reply)
end

local function ids_of(members)
  local ids = {}
  for i, member in ipairs(members) do
    ids[i] = select(2, parts(member))
  end
  return ids
end

local ready = redis.call('ZRANGE', q.ready, 0, limit - 1)
for _, place in ipairs({ 'delayed', 'leased' }) do
  local due = redis.call('ZRANGE', q[place], '-inf', now, 'BYSCORE', 'LIMIT', 0, limit)
  for _, id in ipairs(ids_of(due)) do
    ready[#ready + 1] = id
  end
end
local later = redis.call('ZRANGE', q.delayed, '(' .. string.format('%.3f', now), '+inf', 'BYSCORE', 'LIMIT', 0, limit)
return { written(ready, true), written(ids_of(later), false) }
