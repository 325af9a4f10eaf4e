"""Celery's table: this queue's table, and a running task may be revoked. For ``lifecycle check --table``."""

from lifecycle import LIFECYCLE, Lifecycle, Transition

executing, revoked = LIFECYCLE.state("executing"), LIFECYCLE.state("revoked")

TABLE = Lifecycle(
    LIFECYCLE.states,
    [
        *LIFECYCLE.transitions,
        Transition("terminate", executing, revoked, "revoked while it ran, and its process killed"),
    ],
)
