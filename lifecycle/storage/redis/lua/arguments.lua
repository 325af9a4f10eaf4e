-- Prefix of the queue's keys, and the arguments of the call, packed. A script that writes gets as its first three
-- arguments the name of the connection, the number of the call, and the subscriptions of the calling process.
local prefix, args = KEYS[1], cmsgpack.unpack(ARGV[1])
local call = redis.call
