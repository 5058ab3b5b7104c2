-- A node says that it lives, or (for 0 ms) that it ends. Takes out the clients of nobody; of others, who have said nothing
-- for longer than their lease; or of itself. Returns whether its own lease was still there.
local p = KEYS[1]
local me, time, whose, most = unpack(ARGV)

local function take_out(node)
    local all = redis.call('HGETALL', p .. ':clients')
    for i = 1, #all, 2 do
        local order, of, name = string.match(all[i + 1], '^(%d+) (%S+) (.*)$')
        if of == node then
            redis.call('HDEL', p .. ':names', name)
            redis.call('HDEL', p .. ':clients', all[i])
            redis.call('XADD', p .. ':stream', 'MAXLEN', '~', most, '*', 'me', node, 'number', '0', 'what', 'left',
                'client', all[i], 'order', order, 'old', name, 'new', '', 'text', '')
        end
    end
    redis.call('HDEL', p .. ':nodes', node)
end

local was = redis.call('EXISTS', p .. ':lease:' .. me)
if whose == 'self' then take_out(me) end
if time == '0' then
    redis.call('DEL', p .. ':lease:' .. me, p .. ':done:' .. me)
    return was
end
redis.call('SET', p .. ':lease:' .. me, '1', 'PX', time)
redis.call('HSET', p .. ':nodes', me, '1')
if whose == 'others' then
    for _, node in ipairs(redis.call('HKEYS', p .. ':nodes')) do
        if redis.call('EXISTS', p .. ':lease:' .. node) == 0 then take_out(node) end
    end
end
return was
