-- Whether something is ready; when something is due, or a hold ends.
local due = call("ZRANGE", P .. ":due", 0, 0, "WITHSCORES")[2]
local kept = call("ZRANGE", P .. ":kept", 0, 0, "WITHSCORES")[2]
return {call("ZCARD", P .. ":ready"), due or false, kept or false}
