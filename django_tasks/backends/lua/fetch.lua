#!lua flags=allow-oom
-- ARGV: limit, milliseconds of the lease, its token, '1' if this was asked before and the answer never came.
-- Returns for each queue the ids that were taken, what is kept of each message, and how often each was delivered; and
-- in the end what time it is.
local limit, lease, token, again = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4] == '1'
local BYTES = 16 * 1024 * 1024 -- more is not taken at once, lest this server holds its breath
local AGAIN = 20000 -- milliseconds within which somebody asks again
local ends, bytes = string.format('%.3f', now + lease), 0

local function append(list, more)
  local count = #list
  for i, one in ipairs(more) do
    list[count + i] = one
  end
end

local function give(q, taken, ids)
  local values, leased = read(MESSAGES, ids), {}
  for i, id in ipairs(ids) do
    local value = values[i] or ''
    leased[2 * i - 1], leased[2 * i] = ends, token .. rank_of(value) .. id
    values[i], bytes = value, bytes + #value
  end
  each('ZADD', q.leased, leased)
  append(taken[1], ids)
  append(taken[2], values)
  limit = limit - #ids
end

-- Gives anew what was leased under this very token.
local function give_again(q, taken)
  local newest =
    redis.call('ZRANGE', q.leased, '+inf', now + lease - AGAIN, 'BYSCORE', 'REV', 'LIMIT', 0, 10 * PIECE)
  local mine = {}
  for _, receipt in ipairs(newest) do
    if string.sub(receipt, 1, 16) == token then
      mine[#mine + 1] = string.sub(receipt, 33)
    end
  end
  give(q, taken, mine)
end

local function take(q, taken)
  while limit > 0 and bytes < BYTES do
    local ids = redis.call('ZRANGE', q.ready, 0, math.min(limit, 250) - 1)
    if #ids == 0 then
      return
    end
    redis.call('ZREMRANGEBYRANK', q.ready, 0, #ids - 1)
    if redis.call('EXISTS', q.since) == 1 then
      each('ZREM', q.since, ids)
    end
    give(q, taken, ids)
  end
end

local reply = {}
for i = 2, #KEYS do
  local q, taken = queue(KEYS[i]), { {}, {} }
  promote(q)
  if again then
    give_again(q, taken)
  end
  take(q, taken)
  taken[3] = read(TRIES, taken[1])
  reply[i - 1] = taken
end
reply[#KEYS] = stamp
return reply
