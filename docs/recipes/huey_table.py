"""Huey's table: this queue's table, and one transition more. For ``lifecycle check --table huey_table``."""

from lifecycle import LIFECYCLE, Lifecycle, Transition

queued, scheduled = LIFECYCLE.state("queued"), LIFECYCLE.state("scheduled")

TABLE = Lifecycle(
    LIFECYCLE.states,
    [
        *LIFECYCLE.transitions,
        Transition("release", scheduled, queued, "Huey's scheduler moves a due task into the queue"),
    ],
)
