-- What a request really took, in place of what was charged. KEYS and ARGV as when it was charged, the word being
-- what was really used; the second argument says "keep" for places that are to be believed for longer.
local clock = redis.call('TIME')
local now = (tonumber(clock[1]) - 1767225600) * 1000 + tonumber(clock[2]) / 1000
local place, lease = ARGV[1], tonumber(ARGV[2])
for i = 1, #KEYS / 3 do
  local a, b, base = KEYS[3 * i - 2], KEYS[3 * i - 1], 3 + (i - 1) * 5
  local kind, limit, cost = ARGV[base], tonumber(ARGV[base + 1]), tonumber(ARGV[base + 2])
  local span, word = tonumber(ARGV[base + 3]), ARGV[base + 4]
  if word == 'keep' then
    local until_then = string.format('%.3f', now + lease)
    if kind == 'c' then
      redis.call('ZADD', a, until_then, place)
      redis.call('PEXPIRE', a, lease + 1000)
    elseif kind == 'b' then
      redis.call('ZADD', b, until_then, place .. ':' .. ARGV[base + 2])
      redis.call('PEXPIRE', b, lease + 1000)
    end
  elseif kind == 't' then
    local full = math.max(tonumber(redis.call('GET', a) or '0'), now)
    full = full + (tonumber(word) - cost) * span / math.max(limit, 1)
    if full > now then
      redis.call('SET', a, string.format('%.6f', full), 'PX', math.ceil(full - now) + 1000)
    else
      redis.call('DEL', a)
    end
  elseif kind == 'c' then
    redis.call('ZREM', a, place)
  elseif kind == 'b' then
    redis.call('ZREM', b, place .. ':' .. ARGV[base + 2])
    if redis.call('EXISTS', a) == 1 then
      redis.call('SET', a, string.format('%.0f', tonumber(redis.call('GET', a)) + tonumber(word)), 'KEEPTTL')
    end
  end
end
return {}
