-- Takes the lease if nobody has it, and with it a new epoch and nonce.
-- KEYS: checkpoint, lease. ARGV: nonce, milliseconds. Returns epoch and version, or nothing.
-- Counts take-overs until an owner says that all is well, and deaths in a row at the record that the
-- one before was about to apply.
if not redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then
  -- A lease that never ends is none that a worker wrote: it gets an end (from Redis 7 on).
  redis.pcall('PEXPIRE', KEYS[2], ARGV[2], 'NX')
  return {}
end
local is_taken, answer = pcall(function()
  -- Beyond 2^53 a number is not the next one any more: whoever counted on would be fenced for ever.
  for _, field in ipairs({ 'epoch', 'ver' }) do
    local known = redis.call('HGET', KEYS[1], field)
    if known and not (string.match(known, '^%d+$') and tonumber(known) < 9007199254740992) then
      error({ err = 'ERR its field ' .. field .. ' is no number that a worker wrote' })
    end
  end
  local epoch = redis.call('HINCRBY', KEYS[1], 'epoch', 1)
  redis.call('HSET', KEYS[1], 'nonce', ARGV[1])
  redis.call('HSETNX', KEYS[1], 'ver', '0')
  redis.call('HINCRBY', KEYS[1], 'tries', 1)
  local trying = redis.call('HGET', KEYS[1], 'trying')
  if trying and trying ~= '0' then
    if redis.call('HGET', KEYS[1], 'suspect') ~= trying then
      redis.call('HSET', KEYS[1], 'suspect', trying, 'deaths', '0')
    end
    redis.call('HINCRBY', KEYS[1], 'deaths', 1)
    redis.call('HSET', KEYS[1], 'trying', '0')
  else
    redis.call('HDEL', KEYS[1], 'suspect')
  end
  local version = redis.call('HGET', KEYS[1], 'ver')
  return { string.format('%d', epoch), version }
end)
if is_taken then return answer end
-- What cannot be owned is not held: the next attempt tells it again.
redis.call('DEL', KEYS[2])
return redis.error_reply((type(answer) == 'table' and answer.err or tostring(answer)) .. ' (' .. KEYS[1] .. ')')
