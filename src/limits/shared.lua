-- All limits of one request, looked at together and charged together, or none.
--
-- KEYS: three for each limit, and one more that tells whether this server still has what it once counted.
-- ARGV: the name of the place, how long a place is believed (ms), what that last key said to the caller ('0': nothing
-- yet), and for each limit its kind, limit, cost, window (ms) and one word more. The only clock is this server's.
--   r  requests in a sliding window: a list of "ms:count", and their sum; the word is whose request it is where
--      several share the limit: the third key then tells who asked for how much and had how much
--   t  tokens in a bucket that may fall into debt: the time at which it is full again
--   c  requests at once: places with the time until which they are believed
--   b  a budget: what was spent, and reserves with the time until which they are believed; the window is the
--      time until the period ends, the word what is spent at least and whether the client named its bound
-- Gives 1 or 0, or 2 where the counts were lost since the caller was here (nothing is charged then); what the last key
-- says, and for how long (ms); then for each limit: whether it has room, what is left, ms, spent, reserved.
local clock = redis.call('TIME')
local now = (tonumber(clock[1]) - 1767225600) * 1000 + tonumber(clock[2]) / 1000
local place, lease = ARGV[1], tonumber(ARGV[2])
local count = math.floor(#KEYS / 3)
local born = redis.call('GET', KEYS[#KEYS])
if not born then
  born = string.format('%.0f', now)
  redis.call('SET', KEYS[#KEYS], born)
end
local age = string.format('%.0f', math.max(0, now - tonumber(born)))
if ARGV[3] ~= '0' and ARGV[3] ~= born then return {2, born, age} end
local out, all = {1, born, age}, true
local seen = {}

-- What the sharers of one limit asked for and had in about the last window: the present one, and of the one before as
-- much as still overlaps. Small wishes are met whole, the rest is divided evenly.
local function enough(key, mine, taken, limit, span)
  local slot = math.floor(now / span)
  local fresh = 1 - (now / span - slot)
  if tonumber(redis.call('HGET', key, 'slot') or '-1') < slot then
    for _, field in ipairs(redis.call('HKEYS', key)) do
      local at = tonumber(string.match(field, '^(%d+):'))
      if at and at < slot - 1 then redis.call('HDEL', key, field) end
    end
    redis.call('HSET', key, 'slot', slot)
  end
  if redis.call('HLEN', key) > 4096 then return false end
  redis.call('HINCRBY', key, slot .. ':a:' .. mine, 1)
  redis.call('PEXPIRE', key, 2 * span)
  -- What many share is not worth the time of all: it is served as they come.
  if taken < math.floor(limit / 2) or redis.call('HLEN', key) > 512 then return false end
  local asked, used, all = {}, 0, redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    local at, what, who = string.match(all[i], '^(%d+):(%a):(.*)$')
    if at then
      local n = tonumber(all[i + 1])
      if tonumber(at) < slot then n = n * fresh end
      if what == 'a' and who ~= mine then
        asked[who] = (asked[who] or 0) + n
      elseif what == 'u' and who == mine then
        used = used + n
      end
    end
  end
  local wishes, left = {}, limit
  for _, n in pairs(asked) do table.insert(wishes, n) end
  if #wishes == 0 then return false end
  table.sort(wishes)
  local sharers = #wishes + 1
  for _, wish in ipairs(wishes) do
    if wish > left / sharers then break end
    left, sharers = left - wish, sharers - 1
  end
  return used >= math.max(1, math.floor(left / sharers))
end

for i = 1, count do
  local a, b, base = KEYS[3 * i - 2], KEYS[3 * i - 1], 4 + (i - 1) * 5
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
    local first_out = head and math.ceil(span - (now - head)) or span
    if word ~= '-' and enough(KEYS[3 * i], word, total, limit, span) then
      room, ms = 0, math.max(first_out, 1000)
    elseif total + cost > limit then
      room, ms = 0, first_out
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
  local a, b, base = KEYS[3 * i - 2], KEYS[3 * i - 1], 4 + (i - 1) * 5
  local kind, limit, cost = ARGV[base], tonumber(ARGV[base + 1]), tonumber(ARGV[base + 2])
  local span, word = tonumber(ARGV[base + 3]), ARGV[base + 4]
  if kind == 'r' then
    if word ~= '-' then
      redis.call('HINCRBY', KEYS[3 * i], math.floor(now / span) .. ':u:' .. word, 1)
    end
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
