-- One step of the rule for FHIR types that a destination lacks, by Redis' own clock.
--
-- type_probes.py is its only caller; docs/lifecycle.md explains it in prose.
--
-- Sorted sets, with times in milliseconds of Redis' clock:
--   KEYS[1]     the types of which only probes go out, by when the next probe may go
--   KEYS[2]     the types that answered again lately, by when; a response to an earlier request says
--               nothing new
--   KEYS[3] …   for each type that is reported: what of it failed lately, less what successes
--               outweighed
--
-- ARGV: the time between two probes; the type for which a probe is wanted, or ''; then for each type
-- that is reported: its name, its successes, how many failures follow, and each of these: an id, and
-- when it was asked.
--
-- Returns {granted, now, probing, answering, began, ended}: the first two with the milliseconds until
-- the next probe and since the success, the others are what changed.

-- As in rate_limiter.lua: so many different failures that no success outweighs, what one success
-- outweighs, and when a failure is forgotten.
local FAILURES = 10
local OUTWEIGHS = 2
local MEMORY = 300000

local probe_every, wanted = tonumber(ARGV[1]), ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local began, ended = {}, {}

-- Whoever reaches Redis can write these keys: what is no set of types is not there.
local MOST_TYPES = 1000
for i, key in ipairs(KEYS) do
    local found = redis.call('TYPE', key).ok
    if (found ~= 'zset' and found ~= 'none')
        or (i <= 2 and found == 'zset' and redis.call('ZCARD', key) > MOST_TYPES) then
        redis.call('DEL', key)
    end
end
for i = 1, 2 do
    for _, name in ipairs(redis.call('ZRANGE', KEYS[i], 0, -1)) do
        if #name > 100 or not name:match('^%w+/%a+$') then redis.call('ZREM', KEYS[i], name) end
    end
end

-- If Redis' clock was ahead before, these times are in the future.
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now + probe_every, '+inf')) do
    redis.call('ZADD', KEYS[1], now + probe_every, name)
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '(' .. now, '+inf')
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - MEMORY)

local function is_failing(failing, good, answered_at, first, last)
    for i = first, last, 2 do
        if tonumber(ARGV[i + 1]) >= answered_at then redis.call('ZADD', failing, now, ARGV[i]) end
    end
    if good > 0 then redis.call('ZPOPMIN', failing, OUTWEIGHS * good) end
    redis.call('ZREMRANGEBYSCORE', failing, '(' .. now, '+inf')
    redis.call('ZREMRANGEBYSCORE', failing, '-inf', now - MEMORY)
    redis.call('PEXPIRE', failing, MEMORY)
    return redis.call('ZCARD', failing) >= FAILURES
end

local next_arg = 3
for i = 3, #KEYS do
    local name, good = ARGV[next_arg], tonumber(ARGV[next_arg + 1])
    local first = next_arg + 3
    next_arg = first + 2 * tonumber(ARGV[next_arg + 2])
    if redis.call('ZSCORE', KEYS[1], name) then
        if good > 0 then
            redis.call('ZREM', KEYS[1], name)
            redis.call('ZADD', KEYS[2], now, name)
            table.insert(ended, name)
        end
    else
        local answered_at = tonumber(redis.call('ZSCORE', KEYS[2], name) or 0)
        if is_failing(KEYS[i], good, answered_at, first, next_arg - 1) then
            redis.call('DEL', KEYS[i])
            redis.call('ZADD', KEYS[1], now + probe_every, name)
            redis.call('ZREM', KEYS[2], name)
            table.insert(began, name)
        end
    end
end

local granted = 0
local probe = wanted ~= '' and redis.call('ZSCORE', KEYS[1], wanted)
if probe and tonumber(probe) <= now then
    granted = 1
    redis.call('ZADD', KEYS[1], now + probe_every, wanted)
end

-- There are some hundred types. Of more, somebody else wrote some.
local probing, answering = {}, {}
local read = redis.call('ZRANGE', KEYS[1], 0, 999, 'WITHSCORES')
for i = 1, #read, 2 do
    table.insert(probing, read[i])
    table.insert(probing, math.max(0, tonumber(read[i + 1]) - now))
end
read = redis.call('ZRANGE', KEYS[2], 0, 999, 'WITHSCORES')
for i = 1, #read, 2 do
    table.insert(answering, read[i])
    table.insert(answering, now - tonumber(read[i + 1]))
end
return {granted, now, probing, answering, began, ended}
