-- What every script that has to do with groups knows. It is put before each of them, below its first line.
--
-- KEYS[1] begins the names of all keys that a script touches, which in a cluster hash to one slot.
--
--   group:<id>      one field for each thing that is said of the group            (hash)
--   parts:<id>      how members ended, by their numbers; what is there stays       (hash)
--   groups:unfired  id of what has ended and is yet to be followed, by the time since when that is so   (sorted set)
--   groups:limited  id of what has not ended, by the time when its time is over                         (sorted set)
--   groups:ended    id of all else that has ended, by the time when it did         (sorted set)
--
-- Fields of a group that scripts know: `n` its size at first, `c` how many members were added later and `+<name>` the
-- number of one of these, `e` when it ended, `w` and `x` the part of the first member that
-- failed and its number, `m` how many members had not ended when its time was over and the numbers of the first, `g` what whom it was given to has for a name, `s` a text that is kept with it. Times are
-- microseconds of this server's clock.

local PIECE = 1000 -- values that one command takes

local UNFIRED, ENDED = KEYS[1] .. 'groups:unfired', KEYS[1] .. 'groups:ended'
local LIMITED = KEYS[1] .. 'groups:limited'
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local stamp = string.format('%.0f', now)

local function key_of(id)
  return KEYS[1] .. 'group:' .. id
end

local function parts_of(id)
  return KEYS[1] .. 'parts:' .. id
end

-- Returns how many members a group has, those that were added later included; nil for one that is not known.
local function size_of(said, added)
  local size = tonumber(said or '')
  return size and size + tonumber(added or '0')
end

-- Writes a group down that is not there, and says whether it was not; `kept` is milliseconds, 0 for ever.
local function opened(id, kept, first, last)
  local key = key_of(id)
  if redis.call('EXISTS', key) == 1 then
    return false
  end
  redis.call('HSET', key, unpack(ARGV, first, last))
  if kept > 0 then
    redis.call('PEXPIRE', key, kept)
  end
  return true
end

-- Writes down that a group ends now, and that what follows is to be sent by whoever goes by that name.
local function close(id, name)
  redis.call('HSET', key_of(id), 'e', stamp, 'g', name)
  redis.call('ZREM', LIMITED, id)
  redis.call('ZADD', UNFIRED, stamp, id)
end

-- Returns what is said of a group but for the text that is kept with it.
local function told(id)
  return redis.call('HMGET', key_of(id), 'n', 't', 'o', 'r', 'p', 'h', 'x', 'w', 'm', 'c')
end
