-- The queue's prefix, and the arguments, packed.
local P, A = KEYS[1], cmsgpack.unpack(ARGV[1])
local call = redis.call
