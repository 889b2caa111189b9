-- Takes the lease if nobody has it, and with it a new epoch and nonce.
-- KEYS: checkpoint, lease. ARGV: nonce, milliseconds. Returns epoch and version, or nothing.
-- Counts take-overs until an owner says that all is well, and deaths in a row at the record that the
-- one before was about to apply.
if not redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return {} end
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
return { string.format('%d', epoch), redis.call('HGET', KEYS[1], 'ver') }
