"""The rules: the table, the machine, tasks and policies. Pure: no clock, thread, file or socket."""
