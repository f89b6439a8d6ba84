#!lua flags=no-writes
-- ARGV: how many at most. Returns the ids of groups whose time is over.
return redis.call('ZRANGE', LIMITED, '-inf', stamp, 'BYSCORE', 'LIMIT', 0, ARGV[1])
