-- Write results as Celery has them; one that is final already stays as it is.
-- ARGV: milliseconds that final ones are kept, that others are (0: for ever); then of each its key, 1 if it is final, its text.
local final = {SUCCESS = true, FAILURE = true, REVOKED = true, REJECTED = true, IGNORED = true}
for i = 3, #ARGV, 3 do
  local key, text = ARGV[i], ARGV[i + 2]
  local before = redis.call('GET', key)
  local ended = false
  if before then
    local read, meta = pcall(cjson.decode, before)
    ended = read and type(meta) == 'table' and final[meta.status] or false
  end
  if not ended then
    local kept = ARGV[2]
    if ARGV[i + 1] == '1' then
      kept = ARGV[1]
    end
    if kept == '0' then
      redis.call('SET', key, text)
    else
      redis.call('SET', key, text, 'PX', kept)
    end
    redis.call('PUBLISH', key, text)
  end
end
return 1
