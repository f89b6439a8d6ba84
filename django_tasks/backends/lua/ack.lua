#!lua flags=allow-oom
-- ARGV: receipts, as for `change_held`.
return change_held(1, function(q, held)
  local ids = ids_of(held)
  each('ZREM', q.leased, held)
  if redis.call('EXISTS', TRIES) == 1 then
    each('HDEL', TRIES, ids)
  end
  each('HDEL', MESSAGES, ids)
end)
