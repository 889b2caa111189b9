-- Takes the lease if nobody has it, and with it a new epoch and nonce.
-- KEYS: checkpoint, lease. ARGV: nonce, milliseconds. Returns epoch and version, or nothing.
if not redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return {} end
local epoch = redis.call('HINCRBY', KEYS[1], 'epoch', 1)
redis.call('HSET', KEYS[1], 'nonce', ARGV[1])
redis.call('HSETNX', KEYS[1], 'ver', '0')
return { string.format('%d', epoch), redis.call('HGET', KEYS[1], 'ver') }
