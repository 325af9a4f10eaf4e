"""A simulated world of workers, producers and recoverers, in which one operation happens after the other."""
