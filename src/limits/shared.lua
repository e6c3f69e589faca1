-- All limits of one request, looked at together and charged together, or none.
--
-- KEYS: two for each limit. ARGV: the name of the place, how long a place is believed (ms), and for each limit
-- its kind, limit, cost, window (ms) and one word more. The only clock is this server's.
--   r  requests in a sliding window: a list of "ms:count", and their sum
--   t  tokens in a bucket that may fall into debt: the time at which it is full again
--   c  requests at once: places with the time until which they are believed
--   b  a budget: what was spent, and reserves with the time until which they are believed; the window is the
--      time until the period ends, the word what is spent at least and whether the client named its bound
-- Gives 1 or 0, then for each limit: whether it has room, what is left, ms, spent, reserved.
local clock = redis.call('TIME')
local now = (tonumber(clock[1]) - 1767225600) * 1000 + tonumber(clock[2]) / 1000
local place, lease = ARGV[1], tonumber(ARGV[2])
local count = #KEYS / 2
local out, all = {1}, true
local seen = {}

for i = 1, count do
  local a, b, base = KEYS[2 * i - 1], KEYS[2 * i], 3 + (i - 1) * 5
  local kind, limit, cost = ARGV[base], tonumber(ARGV[base + 1]), tonumber(ARGV[base + 2])
  local span, word = tonumber(ARGV[base + 3]), ARGV[base + 4]
  local room, left, ms, spent, reserved = 1, 0, 0, 0, 0
  if kind == 'r' then
    local total = tonumber(redis.call('GET', b) or '0')
    local head
    while true do
      local first = redis.call('LINDEX', a, 0)
      if not first then total = 0 break end
      local at, n = string.match(first, '^(%d+):(%d+)$')
      if now - tonumber(at) < span then head = tonumber(at) break end
      redis.call('LPOP', a)
      total = total - tonumber(n)
      redis.call('SET', b, total, 'KEEPTTL')
    end
    seen[i] = total
    if total + cost > limit then
      room = 0
      ms = head and math.ceil(span - (now - head)) or span
    else
      left, ms = limit - total - cost, span
    end
  elseif kind == 't' then
    local step = span / math.max(limit, 1)
    local full = math.max(tonumber(redis.call('GET', a) or '0'), now)
    seen[i] = full
    local lacks = full + math.max(math.min(cost, limit), 1) * step - span - now
    if limit == 0 or lacks > 0.000001 then
      room, ms = 0, limit == 0 and 86400000 or math.ceil(lacks)
    else
      local after = full + cost * step
      left, ms = math.max(0, math.floor((now + span - after) / step + 0.000001)), math.ceil(after - now)
    end
  elseif kind == 'c' then
    redis.call('ZREMRANGEBYSCORE', a, '-inf', now)
    local flying = redis.call('ZCARD', a)
    ms = 1000
    if flying + 1 > limit then room = 0 else left = limit - flying - 1 end
  else
    local least, bounded = string.match(word, '^(%d+):(%d)$')
    redis.call('ZREMRANGEBYSCORE', b, '-inf', now)
    spent = math.max(tonumber(redis.call('GET', a) or least), 0)
    local holders = redis.call('ZRANGE', b, 0, -1)
    for _, member in ipairs(holders) do
      reserved = reserved + tonumber(string.match(member, ':(%d+)$'))
    end
    left, ms = math.max(0, limit - spent - reserved), span
    local alone = bounded == '0' and #holders == 0 and left > 0
    if not ((cost <= left and left > 0) or alone) then room = 0 end
    seen[i] = spent
  end
  if room == 0 then all = false end
  for _, number in ipairs({room, left, math.floor(ms), spent, reserved}) do
    table.insert(out, string.format('%.0f', number))
  end
end

if not all then
  out[1] = 0
  return out
end

for i = 1, count do
  local a, b, base = KEYS[2 * i - 1], KEYS[2 * i], 3 + (i - 1) * 5
  local kind, limit, cost = ARGV[base], tonumber(ARGV[base + 1]), tonumber(ARGV[base + 2])
  local span = tonumber(ARGV[base + 3])
  if kind == 'r' then
    -- Requests within a small part of the window share an element, which counts as long as the last of them.
    local part, last, n = span / 6000, redis.call('LINDEX', a, -1), cost
    local stamp = math.ceil(now)
    if last then
      local at, had = string.match(last, '^(%d+):(%d+)$')
      if math.floor(tonumber(at) / part) == math.floor(stamp / part) then
        redis.call('RPOP', a)
        n = n + tonumber(had)
      end
    end
    redis.call('RPUSH', a, string.format('%.0f:%.0f', stamp, n))
    redis.call('PEXPIRE', a, span + 1000)
    redis.call('SET', b, string.format('%.0f', seen[i] + cost), 'PX', span + 1000)
  elseif kind == 't' then
    local full = seen[i] + cost * span / math.max(limit, 1)
    redis.call('SET', a, string.format('%.6f', full), 'PX', math.ceil(full - now) + 1000)
  elseif kind == 'c' then
    redis.call('ZADD', a, string.format('%.3f', now + lease), place)
    redis.call('PEXPIRE', a, lease + 1000)
  else
    redis.call('SET', a, string.format('%.0f', seen[i]), 'PX', math.ceil(span) + 3600000)
    redis.call('ZADD', b, string.format('%.3f', now + lease), place .. ':' .. ARGV[base + 2])
    redis.call('PEXPIRE', b, lease + 1000)
  end
end
return out
