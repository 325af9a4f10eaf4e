"""The SQLite adapter: one file, no server."""
