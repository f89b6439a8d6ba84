#!lua flags=allow-oom
-- ARGV: milliseconds of delay, '1' if the delivery counts, then receipts, as for `change_held`.
local delay, spent = tonumber(ARGV[1]), ARGV[2] == '1'
return change_held(3, function(q, members, ids)
  each('ZREM', q.leased, members)
  each('HDEL', TOKENS, ids)
  local later, ready, since = {}, {}, {}
  for i, id in ipairs(ids) do
    if spent then
      redis.call('HINCRBY', TRIES, id, 1)
    end
    if delay > 0 then
      later[#later + 1], later[#later + 2] = now + delay, members[i]
    else
      ready[#ready + 1], ready[#ready + 2] = parts(members[i]), id
      since[#since + 1], since[#since + 2] = now, id
    end
  end
  put_off(q, later)
  if #ready > 0 then
    each('ZADD', q.ready, ready)
    each('ZADD', q.since, since)
    ring(q, true)
  end
end)
