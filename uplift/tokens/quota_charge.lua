-- Counts one user-management call, if the quota allows it. By Redis' own clock.
--
-- KEYS[1]  the calls of the last period: a sorted set, by the time of each call in milliseconds
-- KEYS[2]  is there while nobody may call
-- ARGV     the period in milliseconds, how many calls it has for the caller, the call's id, how many
--          milliseconds nobody may call at most, how many calls KEYS[1] holds at most
--
-- Whoever reaches Redis can write these keys, and its clock may have been ahead. So nothing suspends
-- for longer than that, no call counts for longer than a period from now, and a key that holds
-- something else or more begins again.
--
-- Returns 0 if the call is counted, or else the milliseconds until the next call is free.

local time = redis.call('TIME')
-- The fraction of a millisecond is cut off, so a call leaves the period one millisecond later.
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local period, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local longest, most = tonumber(ARGV[4]), tonumber(ARGV[5])
local suspended = redis.call('PTTL', KEYS[2])
if suspended == -1 or suspended > longest then -- -1: for ever
    redis.call('PEXPIRE', KEYS[2], longest)
    suspended = longest
end
if suspended > 0 then return suspended end
local found = redis.call('TYPE', KEYS[1]).ok
if (found ~= 'zset' and found ~= 'none')
    or (found == 'zset' and redis.call('ZCARD', KEYS[1]) > most) then
    redis.call('DEL', KEYS[1])
end
for _, call in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')) do
    redis.call('ZADD', KEYS[1], now, call)
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. now - period)
local spent = redis.call('ZCARD', KEYS[1])
if spent >= limit then
    local first = redis.call('ZRANGE', KEYS[1], spent - limit, spent - limit, 'WITHSCORES')
    return math.max(1, first[2] + period + 1 - now)
end
redis.call('ZADD', KEYS[1], now, ARGV[3])
redis.call('PEXPIRE', KEYS[1], period)
return 0
