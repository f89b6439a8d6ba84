#!lua
-- ARGV: milliseconds that a group is kept which has not ended, 0 for ever; id, the text, and what is said of the group
-- if it is not known.
opened(ARGV[2], tonumber(ARGV[1]), 4, #ARGV)
redis.call('HSET', key_of(ARGV[2]), 's', ARGV[3])
