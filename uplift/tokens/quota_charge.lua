-- Counts one user-management call, if the quota allows it. By Redis' own clock.
--
-- KEYS[1]  the calls of the last period: a sorted set, by the time of each call in milliseconds
-- KEYS[2]  is there while nobody may call
-- ARGV     the period in milliseconds, how many calls it has for the caller, the call's id
--
-- Returns 0 if the call is counted, or else the milliseconds until the next call is free.

local time = redis.call('TIME')
-- The fraction of a millisecond is cut off, so a call leaves the period one millisecond later.
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local suspended = redis.call('PTTL', KEYS[2])
if suspended > 0 then return suspended end
local period, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. now - period)
local spent = redis.call('ZCARD', KEYS[1])
if spent >= limit then
    local first = redis.call('ZRANGE', KEYS[1], spent - limit, spent - limit, 'WITHSCORES')
    return math.max(1, first[2] + period + 1 - now)
end
redis.call('ZADD', KEYS[1], now, ARGV[3])
redis.call('PEXPIRE', KEYS[1], period)
return 0
