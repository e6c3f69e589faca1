-- What one gateway let through that this server does not know of: while it was away, or before it lost its counts.
-- KEYS: the first two of one limit. ARGV: its kind, then
--   r  the window (ms), and pairs of an age (ms) and a count; a count below zero takes back what came last
--   t  the time until the bucket is full again (ms), as the gateway knows it
local clock = redis.call('TIME')
local now = (tonumber(clock[1]) - 1767225600) * 1000 + tonumber(clock[2]) / 1000
local a, b = KEYS[1], KEYS[2]
if ARGV[1] == 't' then
  local full = now + tonumber(ARGV[2])
  if full > now and full > tonumber(redis.call('GET', a) or '0') then
    redis.call('SET', a, string.format('%.6f', full), 'PX', math.ceil(full - now) + 1000)
  end
  return {}
end
local span = tonumber(ARGV[2])
local cells, total = {}, 0
for _, cell in ipairs(redis.call('LRANGE', a, 0, -1)) do
  local at, n = string.match(cell, '^(%d+):(%d+)$')
  if now - tonumber(at) < span then table.insert(cells, {tonumber(at), tonumber(n)}) end
end
for i = 3, #ARGV, 2 do
  local age, n = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  if n > 0 and age < span then table.insert(cells, {math.ceil(now - age), n}) end
  for at = #cells, 1, -1 do
    if n >= 0 then break end
    local less = math.min(cells[at][2], -n)
    cells[at][2], n = cells[at][2] - less, n + less
  end
end
table.sort(cells, function(one, other) return one[1] < other[1] end)
redis.call('DEL', a, b)
for _, cell in ipairs(cells) do
  if cell[2] > 0 then
    redis.call('RPUSH', a, string.format('%.0f:%.0f', cell[1], cell[2]))
    total = total + cell[2]
  end
end
if total > 0 then
  redis.call('PEXPIRE', a, span + 1000)
  redis.call('SET', b, string.format('%.0f', total), 'PX', span + 1000)
end
return {}
