"""Pictures of a table, and of what was recorded."""
