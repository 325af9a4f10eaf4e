"""Workflows: the tasks of pipelines, groups and chords, and the handles of their results."""
