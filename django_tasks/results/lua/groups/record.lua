#!lua
-- ARGV: a name that this call alone has, '1' if the same was asked before and the answer never came; then for each
-- group its id, the number of its parts, and of each its number, '1' if that member failed, and what is kept of it.
-- Returns the ids of the groups that end by that, each with what is told of it.
local name, again = ARGV[1], ARGV[2] == '1'
local given = {}

-- Writes down what is not there; returns how much that was, and where in ARGV the first that failed stands.
local function take_in(id, size, first, last)
  local parts, count, failed = parts_of(id), 0, nil
  for at = first, last, 3 do
    local number = tonumber(ARGV[at])
    if number >= 0 and number < size and redis.call('HSETNX', parts, ARGV[at], ARGV[at + 2]) == 1 then
      count = count + 1
      failed = failed or (ARGV[at + 1] == '1' and at) or nil
    end
  end
  return count, failed
end

local function record(id, first, last)
  local key = key_of(id)
  local said, ended, giver, added = unpack(redis.call('HMGET', key, 'n', 'e', 'g', 'c'))
  local size = size_of(said, added)
  if not size then
    return
  end
  local count, failed = take_in(id, size, first, last)
  if count > 0 then
    -- They go when the group does.
    local left = redis.call('PTTL', key)
    if left > 0 then
      redis.call('PEXPIRE', parts_of(id), left)
    end
  end
  local ends = false
  if ended then
    ends = again and giver == name
  elseif failed then
    redis.call('HSET', key, 'x', ARGV[failed], 'w', ARGV[failed + 2])
    ends = true
  else
    ends = count > 0 and redis.call('HLEN', parts_of(id)) >= size
  end
  if ends and not ended then
    close(id, name)
  end
  if ends then
    given[#given + 1] = { id, told(id) }
  end
end

local i = 3
while i <= #ARGV do
  local last = i + 1 + 3 * tonumber(ARGV[i + 1])
  record(ARGV[i], i + 2, last)
  i = last + 1
end
return given
