#!lua flags=allow-oom
-- ARGV: limit, milliseconds of the lease, its token, '1' if this was asked before and the answer never came.
-- Returns one text for each queue: the entries that were taken, and each one's rank before it.
local limit, lease, token, again = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4] == '1'
local BYTES = 16 * 1024 * 1024 -- more is not taken at once, lest this server holds its breath
local AGAIN = 20000 -- milliseconds within which somebody asks again
local bytes = 0

local function give(q, reply, ids)
  local values, tries, renewed, tokens = read(MESSAGES, ids), read(TRIES, ids), {}, {}
  local ends = string.format('%.3f', now + lease)
  for i, id in ipairs(ids) do
    local rank, value = rank_of(values[i]), values[i] or ''
    renewed[2 * i - 1], renewed[2 * i] = ends, rank .. id
    tokens[2 * i - 1], tokens[2 * i] = id, token
    reply[#reply + 1] = rank .. entry(id, tries[i], value)
    bytes = bytes + #value
  end
  each('ZADD', q.leased, renewed)
  each('HSET', TOKENS, tokens)
  limit = limit - #ids
end

-- Gives anew what was leased under this very token.
local function give_again(q, reply)
  local newest =
    redis.call('ZRANGE', q.leased, '+inf', now + lease - AGAIN, 'BYSCORE', 'REV', 'LIMIT', 0, 10 * PIECE)
  local ids, mine = {}, {}
  for i, member in ipairs(newest) do
    ids[i] = select(2, parts(member))
  end
  for i, found in ipairs(read(TOKENS, ids)) do
    if found == token then
      mine[#mine + 1] = ids[i]
    end
  end
  give(q, reply, mine)
end

local function take(q, reply)
  while limit > 0 and bytes < BYTES do
    local ids = redis.call('ZRANGE', q.ready, 0, math.min(limit, 250) - 1)
    if #ids == 0 then
      return
    end
    redis.call('ZREMRANGEBYRANK', q.ready, 0, #ids - 1)
    if redis.call('EXISTS', q.since) == 1 then
      each('ZREM', q.since, ids)
    end
    give(q, reply, ids)
  end
end

local replies = {}
for i = 2, #KEYS do
  local q, reply = queue(KEYS[i]), {}
  promote(q)
  if again then
    give_again(q, reply)
  end
  take(q, reply)
  replies[#replies + 1] = table.concat(reply)
end
return replies
