-- Every limit of one request in one step. ARGV[1] says which.
--
-- acquire: ARGV = acquire, request id, tokens, milliseconds a slot lives, then for each of KEYS its
--   metric (r, t or c) and limit. Checks all, then takes all or nothing.
--   Taken: {-1, left and milliseconds to the reset of each}.
--   Refused: {place of the limit from 0, left, milliseconds to wait or -1 for never}; of several
--   limits that refuse, the one to wait for longest.
-- look: ARGV as for acquire; takes nothing, and tells of every limit how the request would stand.
--   {place of the limit that would refuse or -1, then for each: what is used, rounded up, and milliseconds to
--   wait: 0 if the request fits, -1 for never}.
-- release: ARGV = release, request id, tokens to add (may be negative), then the metric and limit of each.
-- refresh: ARGV = refresh, request id, milliseconds; KEYS are the slots' sets.
--
-- A limit by the minute is a bucket that leaks limit / 60 a second: its level and when that was, as
-- two doubles. Requests at a time are a sorted set of request ids by when their slot lapses.
redis.replicate_commands()
local clock = redis.call('TIME')
local now = clock[1] * 1000 + clock[2] / 1000
local mode, request = ARGV[1], ARGV[2]
local MINUTE, SLACK = 60000, 1e-6

local function level_of(key, limit)
  local kept = redis.call('GET', key)
  if not kept then return 0 end
  local level, at = struct.unpack('dd', kept)
  return math.max(0, level - math.max(0, now - at) * limit / MINUTE)
end

local function keep(key, level, limit)
  local lasts = math.ceil(level * MINUTE / limit)
  if lasts <= 0 then
    redis.call('DEL', key)
  else
    redis.call('SET', key, struct.pack('dd', level, now), 'PX', lasts + 1000)
  end
  return lasts
end

if mode == 'refresh' then
  for _, key in ipairs(KEYS) do
    redis.call('ZADD', key, now + ARGV[3], request)
    redis.call('PEXPIRE', key, ARGV[3])
  end
  return 1
end

if mode == 'release' then
  local difference = tonumber(ARGV[3])
  for i, key in ipairs(KEYS) do
    local metric, limit = ARGV[2 + 2 * i], tonumber(ARGV[3 + 2 * i])
    if metric == 'c' then
      redis.call('ZREM', key, request)
    elseif difference ~= 0 then
      keep(key, math.max(0, level_of(key, limit) + difference), limit)
    end
  end
  return 1
end

local tokens, lives = tonumber(ARGV[3]), tonumber(ARGV[4])
local levels, waits = {}, {}
local refused, left, longest
for i, key in ipairs(KEYS) do
  local metric, limit = ARGV[3 + 2 * i], tonumber(ARGV[4 + 2 * i])
  local level, cost, wait
  if metric == 'c' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    level, cost = redis.call('ZCARD', key), 1
    if level + 1 > limit then wait = limit < 1 and math.huge or 1000 end
  else
    cost = metric == 't' and tokens or 1
    level = level_of(key, limit)
    if cost > limit then
      wait = math.huge
    elseif level + cost > limit + SLACK then
      wait = math.ceil((level + cost - limit) * MINUTE / limit)
    end
  end
  levels[i], waits[i] = level, wait or 0
  if wait and (not refused or wait > longest) then
    refused, longest = i - 1, wait
    left = math.max(0, math.floor(limit - level + SLACK))
  end
end
if mode == 'look' then
  local seen = {refused or -1}
  for i = 1, #KEYS do
    -- A thousandth is the clock's, not a request's.
    seen[#seen + 1] = math.max(0, math.ceil(levels[i] - 0.001))
    seen[#seen + 1] = waits[i] == math.huge and -1 or waits[i]
  end
  return seen
end
if refused then
  return {refused, left, longest == math.huge and -1 or longest}
end

local answer = {-1}
for i, key in ipairs(KEYS) do
  local metric, limit = ARGV[3 + 2 * i], tonumber(ARGV[4 + 2 * i])
  local level = levels[i]
  if metric == 'c' then
    redis.call('ZADD', key, now + lives, request)
    redis.call('PEXPIRE', key, lives)
    answer[#answer + 1] = limit - level - 1
    answer[#answer + 1] = 0
  else
    level = level + (metric == 't' and tokens or 1)
    local lasts = limit > 0 and keep(key, level, limit) or 0
    answer[#answer + 1] = math.max(0, math.floor(limit - level + SLACK))
    answer[#answer + 1] = lasts
  end
end
return answer
