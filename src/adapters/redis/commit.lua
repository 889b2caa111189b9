-- One commit: all of it, or nothing that counts.
-- KEYS[1]: checkpoint; further keys as the operations name them.
-- ARGV: epoch, nonce, version, commit id, mode, then operations: command, place of the key, n, n
-- arguments. Mode `show` is for what may be there ahead of its commit: it moves no version.
-- The version moves last: a run that broke off is run again with the same bytes, and every
-- operation gives the same when it is done twice.
local function failed(answer, key)
  return redis.error_reply(answer.err .. ' (' .. key .. ')')
end
-- Numbers of alerts have no holes: one that is missing between others was kept out by somebody's own entry.
local function is_foreign(key, id)
  if not string.find(key, ':alerts:log', -11, true) or #redis.call('XRANGE', key, id, id) > 0 then return false end
  local first = redis.call('XRANGE', key, '-', '+', 'COUNT', 1)[1]
  local number = function(entry) return tonumber(string.match(entry, '^%d+')) end
  return first and number(first[1]) < number(id)
end
local known = redis.pcall('HMGET', KEYS[1], 'epoch', 'nonce', 'ver', 'commit')
if known.err then return failed(known, KEYS[1]) end
if known[4] == ARGV[4] then return 'done' end
if known[1] ~= ARGV[1] or known[2] ~= ARGV[2] or known[3] ~= ARGV[3] then return 'fenced' end
local at = 6
while at <= #ARGV do
  local n = tonumber(ARGV[at + 2])
  local key = KEYS[tonumber(ARGV[at + 1])]
  local answer = redis.pcall(ARGV[at], key, unpack(ARGV, at + 3, at + 2 + n))
  -- An entry of a stream that is there already is refused by its number: that is as it should be.
  local is_there = ARGV[at] == 'XADD' and type(answer) == 'table' and answer.err
    and string.find(answer.err, 'equal or smaller', 1, true)
  if type(answer) == 'table' and answer.err and not is_there then return failed(answer, key) end
  if is_there and is_foreign(key, ARGV[at + 6]) then
    return redis.error_reply('ERR it holds entries that no worker wrote (' .. key .. ')')
  end
  at = at + 3 + n
end
if ARGV[5] == 'show' then return 'ok' end
redis.call('HSET', KEYS[1], 'ver', string.format('%d', tonumber(ARGV[3]) + 1), 'commit', ARGV[4])
return 'ok'
