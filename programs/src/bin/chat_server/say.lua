-- One thing that a client of a node does, done once: what has a number that was seen is not done again, and nothing is
-- done before all that has lower numbers. Each number is one entry of the stream. Returns the last number that was done.
local p = KEYS[1]
local me, number, kind, client, text, name, force, most = unpack(ARGV)
number = tonumber(number)
local done = tonumber(redis.call('GET', p .. ':done:' .. me) or '0')
if number ~= done + 1 then return done end

local names, clients = p .. ':names', p .. ':clients'
local function taken(wanted) return redis.call('HEXISTS', names, wanted) == 1 end

-- A name that was let in while the nodes were cut off from each other gets a suffix.
local function free(wanted)
    local try, count = wanted, 1
    while taken(try) do
        local tail = '-' .. string.match(me, '^[^:]*') .. (count > 1 and tostring(count) or '')
        try = string.sub(wanted, 1, 32 - #tail) .. tail
        count = count + 1
    end
    return try
end

local function guest()
    local try
    repeat try = 'guest' .. redis.call('INCR', p .. ':guests') until not taken(try)
    return try
end

local order, old
local has = redis.call('HGET', clients, client)
if has then order, old = string.match(has, '^(%d+) %S+ (.*)$') end

local function call_it(new)
    redis.call('HSET', names, new, client)
    redis.call('HSET', clients, client, order .. ' ' .. me .. ' ' .. new)
end

local function rename(new)
    redis.call('HDEL', names, old)
    call_it(new)
    return new
end

local what, new = 'nothing', ''
if kind == 'join' then
    if not old then
        what, old = 'joined', ''
        order = redis.call('INCR', p .. ':order')
        new = text == '' and guest() or free(text)
        call_it(new)
    elseif text == old or taken(text) then
        -- It has this name, or was given another one because somebody has this.
        new = old
        call_it(new)
    else
        what, new = 'renamed', rename(free(text))
    end
elseif kind == 'name' then
    new = old or name
    if old and text ~= old and (force == '1' or not taken(text)) then
        what, new = 'renamed', rename(free(text))
    elseif text ~= old or force ~= '1' then
        what = 'refused'
    end
elseif kind == 'leave' then
    if old then
        what = 'left'
        redis.call('HDEL', names, old)
        redis.call('HDEL', clients, client)
    end
else
    what = 'line'
end
redis.call('XADD', p .. ':stream', 'MAXLEN', '~', most, '*', 'me', me, 'number', number, 'what', what,
    'client', client, 'order', order or '0', 'old', old or name, 'new', new, 'text', text)
redis.call('SET', p .. ':done:' .. me, number, 'EX', 86400)
return number
