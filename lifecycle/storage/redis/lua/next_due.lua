-- {number of ready tasks, earliest due time or false, earliest end of a hold or false}
local due = call("ZRANGE", prefix .. ":due", 0, 0, "WITHSCORES")[2]
local kept = call("ZRANGE", prefix .. ":kept", 0, 0, "WITHSCORES")[2]
return {call("ZCARD", prefix .. ":ready"), due or false, kept or false}
