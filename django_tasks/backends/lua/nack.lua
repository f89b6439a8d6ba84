#!lua flags=allow-oom
-- ARGV: milliseconds of delay, '1' if the delivery counts, then receipts, as for `change_held`.
local delay, spent = tonumber(ARGV[1]), ARGV[2] == '1'
return change_held(3, function(q, held)
  each('ZREM', q.leased, held)
  local later, ready, since = {}, {}, {}
  for i, receipt in ipairs(held) do
    local id = string.sub(receipt, 33)
    if spent then
      redis.call('HINCRBY', TRIES, id, 1)
    end
    if delay > 0 then
      later[2 * i - 1], later[2 * i] = now + delay, string.sub(receipt, 17)
    else
      ready[2 * i - 1], ready[2 * i] = string.sub(receipt, 17, 32), id
      since[2 * i - 1], since[2 * i] = now, id
    end
  end
  put_off(q, later)
  if #ready > 0 then
    each('ZADD', q.ready, ready)
    each('ZADD', q.since, since)
    ring(q, true)
  end
end)
