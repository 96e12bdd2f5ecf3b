-- Returns how many calls of the quota are spent, and spends none. All of them while nobody may call.
--
-- KEYS     as in quota_charge.lua
-- ARGV     the period in milliseconds, how many calls it has

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local suspended = redis.call('PTTL', KEYS[2])
if suspended > 0 or suspended == -1 then return tonumber(ARGV[2]) end
if redis.call('TYPE', KEYS[1]).ok ~= 'zset' then return 0 end -- the next charge begins it again
return redis.call('ZCOUNT', KEYS[1], now - tonumber(ARGV[1]), '+inf')
