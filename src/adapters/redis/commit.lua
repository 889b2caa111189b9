-- One commit: all of it, or nothing that counts.
-- KEYS[1]: checkpoint; further keys as the operations name them.
-- ARGV: epoch, nonce, version, commit id, mode, then operations: command, place of the key, n, n
-- arguments. Mode `show` is for what may be there ahead of its commit: it moves no version.
-- The version moves last: a run that broke off is run again with the same bytes, and every
-- operation gives the same when it is done twice.
local known = redis.call('HMGET', KEYS[1], 'epoch', 'nonce', 'ver', 'commit')
if known[4] == ARGV[4] then return 'done' end
if known[1] ~= ARGV[1] or known[2] ~= ARGV[2] or known[3] ~= ARGV[3] then return 'fenced' end
local at = 6
while at <= #ARGV do
  local n = tonumber(ARGV[at + 2])
  -- An entry of a stream that is there already is refused by its number: that is as it should be.
  local call = ARGV[at] == 'XADD' and redis.pcall or redis.call
  call(ARGV[at], KEYS[tonumber(ARGV[at + 1])], unpack(ARGV, at + 3, at + 2 + n))
  at = at + 3 + n
end
if ARGV[5] == 'show' then return 'ok' end
redis.call('HSET', KEYS[1], 'ver', string.format('%d', tonumber(ARGV[3]) + 1), 'commit', ARGV[4])
return 'ok'
