-- One step of the rate limiter for all worker processes, by Redis' own clock.
--
-- rate_limiter.py is its only caller; docs/lifecycle.md explains it in prose.
--
-- The hash KEYS[1], with times in milliseconds of Redis' clock:
--   limit                 attempts per second that all processes together may begin
--   tokens, at            the token bucket of that limit, and when it was last filled
--   slow_start_threshold  below it the limit doubles each second, above it grows by a tenth
--   probing               since when only probes go out; 0 if more may go
--   probe                 when the next probe may go
--   suspended             until when nothing goes out, because of a Retry-After
--   changed               when the phase last changed or the limit was halved; a response to an
--                         earlier request says nothing new
--   raised                when the limit was last raised
--   stalled               how long nothing was sent, less what waiting uploads were credited
--   used, rate, second    attempts begun in this second; their rate in the last one; when it began
-- The sorted set KEYS[2]: the different uploads that failed lately, less those that successes
-- outweighed.
--
-- Whoever reaches Redis can write these keys. What no rate limiter writes counts as not there: it
-- neither stops the sending nor lets more through than the limit, and it is written over.
--
-- Returns {granted, wait, now, limit, phase, stalled, event}.

-- When so many different uploads fail and no success outweighs them, the destination is away.
local OUTAGE_UPLOADS = 10
-- One success outweighs so many failures: up to two thirds may fail for reasons of their own.
local OUTWEIGHS = 2
-- Attempts per second for a destination that has just come back.
local GENTLE = 10
-- Milliseconds between two steps of the limit, and before the first probe of an outage.
local STEP = 1000
-- Milliseconds after which a failure is forgotten.
local MEMORY = 300000
-- Milliseconds for which a Retry-After suspends the sending at most.
local LONGEST = 3600000
-- Milliseconds of stalled time that may wait to be credited: the sweep does that long before.
local MOST_STALLED = 86400000

local max_rate, probe_every, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local good, good_asked = tonumber(ARGV[4]), tonumber(ARGV[5])
local busy_asked, retry_after = tonumber(ARGV[6]), tonumber(ARGV[7])
local credited = tonumber(ARGV[8]) -- from 9 on: uploads that failed, and when they asked

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for key, kind in pairs({[KEYS[1]] = 'hash', [KEYS[2]] = 'zset'}) do
    local found = redis.call('TYPE', key).ok
    if found ~= kind and found ~= 'none' then redis.call('DEL', key) end
end
local NAMES = {'limit', 'tokens', 'at', 'slow_start_threshold', 'probing', 'probe', 'suspended',
    'changed', 'raised', 'stalled', 'used', 'rate', 'second'}
local read, s = redis.call('HMGET', KEYS[1], unpack(NAMES)), {}
for i, name in ipairs(NAMES) do
    local n = read[i] and tonumber(read[i])
    -- Neither a negative number, nor infinity, nor what is not a number.
    if n and n >= 0 and n < math.huge then s[name] = n end
end

local probe_rate = math.min(1000 / probe_every, max_rate)
local function rate_or_all(rate)
    if rate and rate >= probe_rate then return math.min(rate, max_rate) end
    return max_rate
end
local limit = rate_or_all(s.limit)
local slow_start_threshold = rate_or_all(s.slow_start_threshold)
-- If Redis' clock was ahead before, these times are in the future: no wait is longer for it. By how
-- much it went back, the time of the last step shows.
local back = math.max(0, (s.at or now) - now)
local suspended = math.min(math.max(0, (s.suspended or 0) - back), now + LONGEST)
local probe = math.min(s.probe or 0, now + probe_every)
local probing, changed = math.min(s.probing or 0, now), math.min(s.changed or 0, now)
local raised, at = math.min(s.raised or 0, now), math.min(s.at or now, now)
local used, rate = math.min(s.used or 0, max_rate), math.min(s.rate or 0, max_rate)
local second = math.min(s.second or now, now)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '(' .. now, '+inf')
local event = ''

-- The time to give up stops while only probes go out.
local stalled_until = probing > 0 and now or math.min(now, suspended)
-- The sweep asks every few seconds: a longer gap is from a clock that jumped.
local gap = math.min(MEMORY, math.max(0, stalled_until - at))
local stalled = math.max(0, math.min(s.stalled or 0, MOST_STALLED) + gap - credited)

if now - second >= 1000 then
    rate, used, second = used * 1000 / (now - second), 0, now
end

local function start_probing(after)
    probing, changed, probe, limit = now, now, now + after, probe_rate
    redis.call('DEL', KEYS[2])
end

if retry_after > 0 then suspended = math.max(suspended, now + retry_after) end

-- Requests that were in flight when it was throttled belong to the same burst. The limit may be far
-- above the rate that was used.
if busy_asked > 0 and busy_asked >= changed and now - changed >= STEP and probing == 0 then
    limit = math.min(limit, math.max(rate, used, GENTLE)) / 2
    slow_start_threshold, changed, raised, event = limit, now, now, 'throttled'
    if limit <= probe_rate then
        start_probing(probe_every)
        event = 'probing_busy'
    end
end

local news = good > 0 and good_asked >= changed
if probing == 0 then
    for i = 9, #ARGV, 2 do
        if tonumber(ARGV[i + 1]) >= changed then redis.call('ZADD', KEYS[2], now, ARGV[i]) end
    end
    if news then redis.call('ZPOPMIN', KEYS[2], OUTWEIGHS * good) end
    redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - MEMORY)
    redis.call('PEXPIRE', KEYS[2], MEMORY)
    if redis.call('ZCARD', KEYS[2]) >= OUTAGE_UPLOADS then
        start_probing(math.min(STEP, probe_every))
        event = 'probing_outage'
    end
end

if probing > 0 then
    -- The request was made after probing began: a probe arrived.
    if good > 0 and good_asked >= changed then
        limit = math.min(max_rate, math.max(2 * probe_rate, math.min(GENTLE, slow_start_threshold)))
        probing, changed, raised, event = 0, now, now, 'resumed'
        s.tokens, at = 0, now
    end
elseif news and limit < max_rate and now - raised >= STEP then
    if limit < slow_start_threshold then
        limit = math.min(max_rate, 2 * limit, slow_start_threshold)
    else
        limit = math.min(max_rate, 1.1 * limit)
    end
    raised = now
    if limit == max_rate then slow_start_threshold, event = max_rate, 'full' end
end

-- The bucket is a tenth of a second large, and one attempt at least.
local burst = math.max(1, limit / 10)
local tokens = math.min(burst, (s.tokens or burst) + (now - at) * limit / 1000)
local granted, wait = 0, 0
if suspended > now then
    wait = suspended - now
elseif probing > 0 then
    if wanted > 0 and now >= probe then granted, probe = 1, now + probe_every end
    wait = math.max(0, probe - now)
else
    granted = math.min(wanted, math.floor(tokens))
    tokens = tokens - granted
    if tokens < 1 then wait = math.ceil((1 - tokens) * 1000 / limit) end
end

redis.call('HSET', KEYS[1], 'limit', limit, 'slow_start_threshold', slow_start_threshold,
    'probing', probing, 'suspended', suspended, 'changed', changed, 'raised', raised,
    'probe', probe, 'at', now, 'tokens', tokens, 'used', used + granted, 'rate', rate,
    'second', second, 'stalled', stalled)
local phase = 'full'
if suspended > now then
    phase = 'suspended'
elseif probing > 0 then
    phase = 'probing'
elseif limit < max_rate then
    phase = 'throttled'
end
return {granted, wait, now, tostring(limit), phase, stalled, event}
