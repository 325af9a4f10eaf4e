"""The rules: table, machine, tasks, policies and serializers. No clock, thread, file or socket is used here."""
