"""``lifecycle demo``, and the replay of its scenarios for the diagrams."""
