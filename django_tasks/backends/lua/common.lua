-- What every script of the broker knows. It is put before each of them, below its first line.
--
-- KEYS[1] begins the names of what queues share: the whole broker on one server, one queue in a cluster. Each further
-- key begins the names of one queue. What follows these beginnings hashes to the same slot, which is all that a cluster
-- asks; so that is what is declared.
--
--   messages  id -> rank, time of publication, and the message       (hash)
--   tries     id -> deliveries that counted, where there were any     (hash)
--   numbers   how many messages were ever published                   (counter)
--   queues    names of queues that have had messages                  (set)
--   mark      number and time of the last look for a loss             (hash)
--   ready     id by rank: what may be taken now, best first           (sorted set, of one queue, as all below)
--   delayed   rank and id by the time when it may be taken            (sorted set)
--   leased    token, rank and id by the end of the lease              (sorted set)
--   since     id by the time since when it is ready, of what came back; anything else is ready since its publication
--   arrived   when something became ready last
--   asleep    there while a worker waits, and wants to be told
--
-- Times are milliseconds of this server's clock. A rank is 16 digits: by priority first, then by number. A token is 16
-- characters, fresh at each claim; with rank and id it makes a receipt, which is held while it stands in `leased`.

local PIECE = 1000 -- pairs that one command takes: the stack of Lua ends at 8,000 values
local MIDDLE = '1759218604441600' -- the rank of what has lost its own
local RANK = '^' .. string.rep('%d', 16)
local LEASED = '^' .. string.rep('.', 16) .. '(' .. string.rep('%d', 16) .. ')(.*)'
local DAY = 86400

local shared = KEYS[1]
local MESSAGES, TRIES = shared .. 'messages', shared .. 'tries'
local clock = redis.call('TIME')
local now = clock[1] * 1000 + clock[2] / 1000
local stamp = string.format('%d%06d', clock[1], clock[2])

local function queue(base)
  local names = {}
  for _, name in ipairs({ 'ready', 'delayed', 'leased', 'since', 'arrived', 'asleep' }) do
    names[name] = base .. name
  end
  return names
end

-- Calls a command that takes any number of items.
local function each(command, key, items)
  for first = 1, #items, 2 * PIECE do
    redis.call(command, key, unpack(items, first, math.min(first + 2 * PIECE - 1, #items)))
  end
end

-- Returns what a hash has of each field: nothing, mostly, of a hash that few have.
local function read(key, fields)
  if #fields <= 2 * PIECE then
    return #fields > 0 and redis.call('EXISTS', key) == 1 and redis.call('HMGET', key, unpack(fields)) or {}
  end
  local found = {}
  for first = 1, #fields, 2 * PIECE do
    local last = math.min(first + 2 * PIECE - 1, #fields)
    for i, value in ipairs(redis.call('HMGET', key, unpack(fields, first, last))) do
      found[first + i - 1] = value
    end
  end
  return found
end

-- Returns the rank at the beginning of a text, or a middling one if something else stands there.
local function rank_of(text)
  return text and string.match(text, RANK) or MIDDLE
end

-- Returns the rank and the id of a member of `delayed`, or of `leased`. What is none is taken for an id.
local function parts(member, place)
  if place == 'leased' then
    local rank, id = string.match(member, LEASED)
    return rank or MIDDLE, id or member
  end
  local rank = string.match(member, RANK)
  return rank or MIDDLE, rank and string.sub(member, 17) or member
end

-- Tells who waits that something became ready, or that something will sooner than was known.
local function ring(q, arrived)
  if arrived then
    redis.call('SET', q.arrived, stamp, 'EX', DAY)
  end
  if redis.call('DEL', q.asleep) == 1 then
    redis.call('PUBLISH', q.arrived, arrived and stamp or '')
  end
end

-- Puts what is not yet ready where its time says; `items` are scores and members.
local function put_off(q, items)
  if #items == 0 then
    return
  end
  local first = redis.call('ZRANGE', q.delayed, 0, 0, 'WITHSCORES')[2]
  local soonest = math.huge
  for i = 1, #items, 2 do
    soonest = math.min(soonest, items[i])
  end
  each('ZADD', q.delayed, items)
  if not first or soonest < tonumber(first) then
    ring(q, false)
  end
end

-- Makes ready what is due, a limited number. A lease that ran out is lost here and no sooner: until then nobody else
-- can have the message, so its holder may still ack it.
local function promote(q)
  local ready, since = {}, {}
  for _, place in ipairs({ 'delayed', 'leased' }) do
    local due = redis.call('ZRANGE', q[place], '-inf', now, 'BYSCORE', 'LIMIT', 0, PIECE, 'WITHSCORES')
    local gone = {}
    for i = 1, #due, 2 do
      local rank, id = parts(due[i], place)
      gone[#gone + 1] = due[i]
      ready[#ready + 1], ready[#ready + 2] = rank, id
      since[#since + 1], since[#since + 2] = due[i + 1], id
      if place == 'leased' then
        redis.call('HINCRBY', TRIES, id, 1)
      end
    end
    each('ZREM', q[place], gone)
  end
  if #ready > 0 then
    each('ZADD', q.ready, ready)
    each('ZADD', q.since, since)
    ring(q, true)
  end
end

-- Returns those that are held of the receipts ARGV[first] to ARGV[last] of a queue, and adds a flag for each: '1' for
-- held. None is held twice.
local function held_of(q, first, last, flags)
  local held, count, flagged, seen = {}, 0, #flags, {}
  for start = first, last, 2 * PIECE do
    local stop = math.min(start + 2 * PIECE - 1, last)
    for i, score in ipairs(redis.call('ZMSCORE', q.leased, unpack(ARGV, start, stop))) do
      local receipt = ARGV[start + i - 1]
      flagged = flagged + 1
      if score and not seen[receipt] then
        seen[receipt] = true
        count = count + 1
        held[count], flags[flagged] = receipt, '1'
      else
        flags[flagged] = '0'
      end
    end
  end
  return held
end

-- Returns the ids of receipts.
local function ids_of(receipts)
  local ids = {}
  for i, receipt in ipairs(receipts) do
    ids[i] = string.sub(receipt, 33)
  end
  return ids
end

-- Calls `change` with each queue and the receipts that are held of it. From ARGV[at] on stand, for each queue, the
-- number of its receipts and then those. Returns a flag for each of them.
local function change_held(at, change)
  local flags = {}
  for i = 2, #KEYS do
    local q, count = queue(KEYS[i]), tonumber(ARGV[at])
    local held = held_of(q, at + 1, at + count, flags)
    at = at + count + 1
    if #held > 0 then
      change(q, held)
    end
  end
  return table.concat(flags)
end

-- Takes messages, each unless its id is there already, and puts them where they belong when all have come. Says of each
-- whether it was new.
local function intake()
  local queues, self = {}, {}
  for i = 2, #KEYS do
    queues[i - 1] = { keys = queue(KEYS[i]), ready = {}, count = 0, later = {} }
  end
  local ids, values, places, delays, count, taken = {}, {}, {}, {}, 0, {}
  local number = redis.call('GET', shared .. 'numbers') or 0

  -- `delay` is empty, or milliseconds from now after a '+', or milliseconds since the epoch.
  function self.add(place, id, priority, delay, message)
    count = count + 1
    ids[count], places[count], delays[count] = id, place, delay
    values[count] = string.format('%016d', (100 - priority) * 2 ^ 44 + number + count) .. stamp .. message
  end

  local function put(q, id, rank, delay)
    local visible = now
    if delay ~= '' then
      local seconds = string.match(delay, '^%+(.+)')
      visible = seconds and now + tonumber(seconds) or tonumber(delay)
    end
    if visible > now then
      q.later[#q.later + 1], q.later[#q.later + 2] = visible, rank .. id
    else
      q.ready[q.count + 1], q.ready[q.count + 2] = rank, id
      q.count = q.count + 2
    end
  end

  function self.place_all()
    redis.call('INCRBY', shared .. 'numbers', count)
    local known, new, flags = read(MESSAGES, ids), {}, {}
    for i, id in ipairs(ids) do
      if known[i] or taken[id] then
        flags[i] = '0'
      else
        taken[id], flags[i] = true, '1'
        new[#new + 1], new[#new + 2] = id, values[i]
        put(queues[places[i]], id, string.sub(values[i], 1, 16), delays[i])
      end
    end
    each('HSET', MESSAGES, new)
    for _, q in ipairs(queues) do
      put_off(q.keys, q.later)
      if q.count > 0 then
        each('ZADD', q.keys.ready, q.ready)
        ring(q.keys, true)
      end
    end
    return table.concat(flags)
  end

  return self
end
