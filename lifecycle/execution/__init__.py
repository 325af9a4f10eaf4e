"""Running tasks: claim, announce, run, settle, announce."""
