-- What every script of the store knows. It is put before each of them, below its first line.
--
-- KEYS[1] begins the names of all keys that a script touches, which in a cluster hash to one slot.
--
--   result:<id>  one field for each thing that is said of the task                  (hash)
--   ended        id by the time when the task ended, in microseconds                (sorted set)
--
-- A channel has the name of a result's key; it is told when the task has ended.

local PIECE = 1000 -- values that one command takes

local FINAL, ENDED = 'z', KEYS[1] .. 'ended'

local function key_of(id)
  return KEYS[1] .. 'result:' .. id
end
