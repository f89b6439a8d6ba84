#!lua flags=allow-oom
-- ARGV: receipts, as for `change_held`.
return change_held(1, function(q, members, ids)
  each('ZREM', q.leased, members)
  each('HDEL', TOKENS, ids)
  if redis.call('EXISTS', TRIES) == 1 then
    each('HDEL', TRIES, ids)
  end
  each('HDEL', MESSAGES, ids)
end)
