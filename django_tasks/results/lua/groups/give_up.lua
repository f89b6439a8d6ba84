#!lua
-- ARGV: how many missing members to name, then ids. Ends those of these groups whose time is over and that have not ended.
-- Returns their ids, each with what is told of it.
local named, given = tonumber(ARGV[1]), {}

-- Returns the numbers of the first members that have not ended.
local function absent(id, size)
  local missing, first = {}, 0
  while first < size and #missing < named do
    local numbers = {}
    for number = first, math.min(first + PIECE, size) - 1 do
      numbers[#numbers + 1] = number
    end
    for i, part in ipairs(redis.call('HMGET', parts_of(id), unpack(numbers))) do
      if not part and #missing < named then
        missing[#missing + 1] = numbers[i]
      end
    end
    first = first + #numbers
  end
  return missing
end

local function give_up(id)
  local key = key_of(id)
  local said, ended, added = unpack(redis.call('HMGET', key, 'n', 'e', 'c'))
  local size = size_of(said, added)
  local missing = size and not ended and absent(id, size) or {}
  if #missing == 0 then
    return
  end
  local count = size - redis.call('HLEN', parts_of(id))
  redis.call('HSET', key, 'x', missing[1], 'm', count .. ' ' .. table.concat(missing, ' '))
  close(id, '')
  given[#given + 1] = { id, told(id) }
end

for i = 2, #ARGV do
  local id, limit = ARGV[i], redis.call('ZSCORE', LIMITED, ARGV[i])
  if limit and tonumber(limit) <= now then
    redis.call('ZREM', LIMITED, id)
    give_up(id)
  end
end
return given
