-- Moves a counted call to the time of its end.
--
-- 1upHealth counted it at some time before its response came. So our count of a call never ends
-- before 1upHealth's does.
--
-- KEYS[1]  the calls, as in quota_charge.lua
-- ARGV     the period in milliseconds, the call's id

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if redis.call('TYPE', KEYS[1]).ok ~= 'zset' then return end -- the next charge begins it again
redis.call('ZADD', KEYS[1], 'XX', now, ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
