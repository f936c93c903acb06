-- What runs inside the server, as a FUNCTION or as a script: put and retire for the publisher, get
-- for readers. One call handles a chunk of titles of one space; nothing of another client comes
-- between. serve/vectors.py has the keys' meaning, serve/script.py puts a head and a foot on.
--
-- Reading, comparing and writing in one call is the compare-and-set: of two writers, the higher seq
-- stands in the end, whatever the order in which they come. An equal one is written again, so that
-- a call repeated after a lost reply ends as it would have.

-- A space whose meta is gone, is another filling, or has forgotten a seq that we know was written,
-- is not written to: the publisher must fill it anew. Returns the error, or nil.
local function lost(meta, epoch, last)
  local known = redis.call('HMGET', meta, 'epoch', 'seq')
  if not known[1] then
    return 'UPWELLLOST the space has no meta'
  elseif known[1] ~= epoch then
    return 'UPWELLLOST the space was made anew'
  elseif tonumber(known[2]) < tonumber(last) then
    return 'UPWELLLOST seq ' .. last .. ' was written, but the highest known is ' .. known[2]
  end
end

local function remember(meta, seq, step)
  if tonumber(redis.call('HGET', meta, 'seq')) < tonumber(seq) then
    redis.call('HSET', meta, 'seq', seq)
    if step then
      redis.call('HSET', meta, 'step', step)
    end
  end
end

-- Writes one title's vector; returns whether it did: not over a newer seq.
local function write(key, new, seq, step, vec, time, name)
  local known, added = redis.call('HGET', key, 'seq')
  if known and tonumber(known) > new then
    return false
  end
  if name == '' then
    added = redis.call('HSET', key, 'vec', vec, 'seq', seq, 'step', step, 'time_ms', time)
  else
    added = redis.call(
      'HSET', key, 'vec', vec, 'seq', seq, 'step', step, 'time_ms', time, 'name', name)
  end
  -- A hash that has a seq and lacked vec and step is the mark of a retired title.
  if known and added >= 2 then
    redis.call('HDEL', key, 'gone')
    redis.call('PERSIST', key)
  end
  return true
end

-- Takes one title away and leaves a mark; returns whether it did: not over a newer seq.
local function erase(key, new, seq, time, stays)
  local known = redis.call('HGET', key, 'seq')
  if known and tonumber(known) > new then
    return false
  end
  redis.call('DEL', key)
  redis.call('HSET', key, 'seq', seq, 'time_ms', time, 'gone', '1')
  redis.call('EXPIRE', key, stays)
  return true
end

-- What put and retire have in common: n, prefix, kept, seq, the same as a number, and the keys
-- behind those of the titles.
local function head(keys, args)
  local n = tonumber(args[1])
  return n, tonumber(args[2]), args[3], args[6], tonumber(args[6]),
    keys[n + 1], keys[n + 2], keys[n + 3]
end

-- keys  the hashes of n titles; the updates stream, the meta hash; the vector set, where there is one
-- args  n, length of the keys' prefix, kept (entries in the stream), epoch, last seq written, seq,
--       step, bytes of a vector, all vectors one after the other, all times with a space between,
--       all names with a zero byte after each ('' leaves the one that stands) or '' for no names
-- Returns the positions (from 1) of the titles that have a newer seq, and were left as they are.
local function put(keys, args)
  local n, prefix, kept, seq, new, stream, meta, vset = head(keys, args)
  local step, width, blob = args[7], tonumber(args[8]), args[9]
  local problem = lost(meta, args[4], args[5])
  if problem then
    return redis.error_reply(problem)
  end
  local stale = {}
  local next_time, next_name = string.gmatch(args[10], '%d+'), string.gmatch(args[11], '([^%z]*)%z')
  for i = 1, n do
    local key, time, name = keys[i], next_time(), next_name() or ''
    local vec = string.sub(blob, (i - 1) * width + 1, i * width)
    if write(key, new, seq, step, vec, time, name) then
      local title = string.sub(key, prefix + 1)
      if vset then
        redis.call('VADD', vset, 'FP32', vec, title, 'NOQUANT')
      end
      redis.call(
        'XADD', stream, 'MAXLEN', '~', kept, '*', 'title', title, 'seq', seq, 'time_ms', time)
    else
      stale[#stale + 1] = i
    end
  end
  remember(meta, seq, step)
  return stale
end

-- keys  as above
-- args  n, length of the keys' prefix, kept, epoch, last seq written, seq, time_ms, seconds that
--       the mark of the retired title stays
-- Returns the positions of the titles that have a newer seq, and were left as they are.
local function retire(keys, args)
  local n, prefix, kept, seq, new, stream, meta, vset = head(keys, args)
  local time, stays = args[7], args[8]
  local problem = lost(meta, args[4], args[5])
  if problem then
    return redis.error_reply(problem)
  end
  local stale = {}
  for i = 1, n do
    if erase(keys[i], new, seq, time, stays) then
      local title = string.sub(keys[i], prefix + 1)
      if vset then
        redis.call('VREM', vset, title)
      end
      redis.call('XADD', stream, 'MAXLEN', '~', kept, '*', 'title', title,
        'seq', seq, 'time_ms', time, 'gone', '1')
    else
      stale[#stale + 1] = i
    end
  end
  remember(meta, seq)
  return stale
end

-- For a cluster: the same for one title, with keys = its hash. Returns 1, or 0 where it was stale.
local function put_one(keys, args)
  local seq, step, vec, time, name = unpack(args)
  return write(keys[1], tonumber(seq), seq, step, vec, time, name) and 1 or 0
end

local function retire_one(keys, args)
  local seq, time, stays = unpack(args)
  return erase(keys[1], tonumber(seq), seq, time, stays) and 1 or 0
end

-- keys  the meta hash
-- args  epoch, last seq written, seq, step ('': as it is)
local function record(keys, args)
  local problem = lost(keys[1], args[1], args[2])
  if problem then
    return redis.error_reply(problem)
  end
  remember(keys[1], args[3], args[4] ~= '' and args[4] or nil)
  return 1
end

-- keys  the meta hash
-- args  epoch, field, value: sets the field, where the space is still the same filling
local function note(keys, args)
  if redis.call('HGET', keys[1], 'epoch') ~= args[1] then
    return redis.error_reply('UPWELLLOST the space was made anew')
  end
  return redis.call('HSET', keys[1], args[2], args[3])
end

-- keys  the hashes of n titles; the meta hash; upwell:current
-- Returns the live space, the space's epoch, the vectors of the titles that are there one after the
-- other, and for each title a line "seq step time_ms bytes of its vector", which is empty where it is
-- not there: a few long answers are read many times faster than many short ones.
local function get(keys, args)
  local n = #keys - 2
  local vecs, lines = {}, {}
  for i = 1, n do
    local hash = redis.call('HMGET', keys[i], 'vec', 'seq', 'step', 'time_ms')
    if hash[1] then
      vecs[#vecs + 1] = hash[1]
      lines[i] = hash[2] .. ' ' .. hash[3] .. ' ' .. hash[4] .. ' ' .. #hash[1]
    else
      lines[i] = ''
    end
  end
  return {
    redis.call('GET', keys[n + 2]),
    redis.call('HGET', keys[n + 1], 'epoch'),
    table.concat(vecs),
    table.concat(lines, '\n'),
  }
end
