"""The rule of pace, as the script that Redis runs: one step for all processes, by Redis' clock.

It stands here and nowhere else. What goes in and comes out is in `uplift.delivery.rate_limiter`, its one caller;
`docs/lifecycle.md` tells it in prose.

What the state remembers, times in milliseconds of Redis' clock:

- `limit`: attempts a second that all processes together may begin; `tokens`, `at`: its bucket
- `knee`: up to here the limit doubles each second, beyond it grows by a tenth
- `shut`: since when only probes go out, 0 if it is open; `probe`: when the next one may
- `closed`: until when nothing goes out at all, because of a Retry-After
- `changed`: the last turn for the worse or the better; what was asked before it tells nothing new
- `stood`: how long sending stood still, not yet made good to what waits; `at`: counted up to then
- `used`, `rate`, `window`: attempts begun in this second, and a second in the last whole one

The other key holds the different uploads that failed lately and were not outweighed by successes.
"""

# Different uploads that fail, none of them outweighed, before it is 1upHealth that is away.
OUTAGE_UPLOADS = 10
# Failures that one success outweighs. So a third may fail for their own reasons.
OUTWEIGHS = 2
# Attempts a second that a destination is trusted with that has just answered again.
GENTLE = 10
# Milliseconds between two steps of the limit, and after which an outage is first probed.
STEP = 1000
# Milliseconds after which a failure is forgotten.
MEMORY = 300_000

_CONSTANTS = f"""
local OUTAGE_UPLOADS, OUTWEIGHS, GENTLE = {OUTAGE_UPLOADS}, {OUTWEIGHS}, {GENTLE}
local STEP, MEMORY = {STEP}, {MEMORY}
"""

_STEPS = """
local most, probe_every, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local good, good_asked = tonumber(ARGV[4]), tonumber(ARGV[5])
local busy_asked, retry_after = tonumber(ARGV[6]), tonumber(ARGV[7])
local made_good = tonumber(ARGV[8])  -- and from 9 on: uploads that failed, and when they asked

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local read, s = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #read, 2 do s[read[i]] = tonumber(read[i + 1]) end

local least = math.min(1000 / probe_every, most)
local limit, knee = math.min(s.limit or most, most), math.min(s.knee or most, most)
local shut, closed, changed = s.shut or 0, s.closed or 0, s.changed or 0
local raised, probe, at = s.raised or 0, s.probe or 0, math.min(s.at or now, now)
local used, rate, window = s.used or 0, s.rate or 0, s.window or now
local event = ''

-- The time to give up stands still while nothing but probes goes out.
local standing = shut > 0 and now or math.min(now, closed)
local stood = math.max(0, (s.stood or 0) + math.max(0, standing - at) - made_good)

if now - window >= 1000 then
    rate, used, window = used * 1000 / (now - window), 0, now
end

local function shut_down(after)
    shut, changed, probe, limit = now, now, now + after, least
    redis.call('DEL', KEYS[2])
end

if retry_after > 0 then closed = math.max(closed, now + retry_after) end

-- What was in flight when it slowed is the same burst. The limit may be far above what was used.
if busy_asked > 0 and busy_asked >= changed and now - changed >= STEP and shut == 0 then
    limit = math.min(limit, math.max(rate, used, GENTLE)) / 2
    knee, changed, raised, event = limit, now, now, 'slowed'
    if limit <= least then
        shut_down(probe_every)
        event = 'shut_busy'
    end
end

local news = good > 0 and good_asked >= changed
if shut == 0 then
    for i = 9, #ARGV, 2 do
        if tonumber(ARGV[i + 1]) >= changed then redis.call('ZADD', KEYS[2], now, ARGV[i]) end
    end
    if news then redis.call('ZPOPMIN', KEYS[2], OUTWEIGHS * good) end
    redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - MEMORY)
    redis.call('PEXPIRE', KEYS[2], MEMORY)
    if redis.call('ZCARD', KEYS[2]) >= OUTAGE_UPLOADS then
        shut_down(math.min(STEP, probe_every))
        event = 'shut_outage'
    end
end

if shut > 0 then
    -- Asked since it was shut: a probe arrived.
    if good > 0 and good_asked >= changed then
        limit = math.min(most, math.max(2 * least, math.min(GENTLE, knee)))
        shut, changed, raised, event = 0, now, now, 'opened'
        s.tokens, at = 0, now
    end
elseif news and limit < most and now - raised >= STEP then
    limit = math.min(most, limit < knee and math.min(2 * limit, knee) or 1.1 * limit)
    raised = now
    if limit == most then knee, event = most, 'full' end
end

-- A bucket of a tenth of a second, and of one attempt at least.
local burst = math.max(1, limit / 10)
local tokens = math.min(burst, (s.tokens or burst) + (now - at) * limit / 1000)
local granted, wait = 0, 0
if closed > now then
    wait = closed - now
elseif shut > 0 then
    if wanted > 0 and now >= probe then granted, probe = 1, now + probe_every end
    wait = math.max(0, probe - now)
else
    granted = math.min(wanted, math.floor(tokens))
    tokens = tokens - granted
    if tokens < 1 then wait = math.ceil((1 - tokens) * 1000 / limit) end
end

redis.call('HSET', KEYS[1], 'limit', limit, 'knee', knee, 'shut', shut, 'closed', closed,
    'changed', changed, 'raised', raised, 'probe', probe, 'at', now, 'tokens', tokens,
    'used', used + granted, 'rate', rate, 'window', window, 'stood', stood)
local state = closed > now and 'closed' or shut > 0 and 'shut' or limit < most and 'slowed'
    or 'open'
return {granted, wait, now, tostring(limit), state, stood, event}
"""

RULE = _CONSTANTS + _STEPS
