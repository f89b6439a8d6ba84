#!lua flags=no-writes
-- ARGV: '1' for those alone that are final, then ids. Returns for each id the names and values of what is known.
local final_alone, found = ARGV[1] == '1', {}
for i = 2, #ARGV do
  local key = key_of(ARGV[i])
  local wanted = not final_alone or redis.call('HEXISTS', key, FINAL) == 1
  found[i - 1] = wanted and redis.call('HGETALL', key) or {}
end
return found
