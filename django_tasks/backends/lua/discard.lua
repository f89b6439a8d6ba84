#!lua flags=allow-oom
-- ARGV: what the names of all keys begin with, then ids. Returns the ids that were removed, and what was kept of
-- each message.
local removed, messages = {}, {}

-- Returns what the keys of a message's queue begin with; the name of the queue stands in the message.
local function base_of(value)
  local length = string.byte(value, 33) * 256 + string.byte(value, 34)
  local name = string.gsub(string.sub(value, 51, 50 + length), '[%%{}]', { ['%'] = '%25', ['{'] = '%7B', ['}'] = '%7D' })
  return ARGV[1] .. '{' .. name .. '}:'
end

local ids = {}
for i = 2, #ARGV do
  ids[#ids + 1] = ARGV[i]
end
local values = read(MESSAGES, ids)
for i, id in ipairs(ids) do
  local value = values[i]
  if value and #value > 50 then
    local q = queue(base_of(value))
    local found = redis.call('ZREM', q.ready, id) + redis.call('ZREM', q.delayed, rank_of(value) .. id)
    -- What stands in no queue cannot be taken out of one: it is leased, or was named twice, or somebody else wrote it.
    if found > 0 then
      redis.call('ZREM', q.since, id)
      redis.call('HDEL', TRIES, id)
      redis.call('HDEL', MESSAGES, id)
      removed[#removed + 1] = id
      messages[#messages + 1] = value
    end
  end
end
return { removed, messages }
