"""Simulated worlds of workers, producers and recoverers, in which one step happens after the other."""
