"""Huey's law: this queue's table, and the one row more that Huey has. For ``lifecycle check --table huey_table``."""

from lifecycle import LIFECYCLE, Lifecycle, Transition

queued, scheduled = LIFECYCLE.state("queued"), LIFECYCLE.state("scheduled")

TABLE = Lifecycle(
    LIFECYCLE.states,
    [
        *LIFECYCLE.transitions,
        Transition("release", scheduled, queued, "Huey's scheduler puts what is due in the queue"),
    ],
)
