"""A consumer's own life: a table like that of its tasks, checked the same way, and gone through the same way.

Each run of a consumer is a life of its own, so one that was stopped can be started again.
"""

from typing import Final

from lifecycle.core.table import Kind, Lifecycle, State, Transition

__all__ = [
    "BEGIN",
    "CONSUMER_LIFECYCLE",
    "DRAIN",
    "DRAINING",
    "END",
    "FORCE",
    "FORCING",
    "INTERRUPT",
    "INTERRUPTING",
    "OPEN",
    "RUNNING",
    "STARTING",
    "STOPPED",
    "ConsumerState",
]  # fmt: skip

_ATTENDANT: Final = "who looks after its workers, once the last has gone home"

STARTING: Final = State("starting", "starting", Kind.WAITING, "itself, once its store has answered")
RUNNING: Final = State("running", "running", Kind.RUNNING, "whoever asks it to stop")
DRAINING: Final = State("draining", "draining", Kind.RUNNING, _ATTENDANT)
INTERRUPTING: Final = State("interrupting", "interrupting", Kind.RUNNING, f"{_ATTENDANT}, or its grace is over")
FORCING: Final = State("forcing", "forcing", Kind.RUNNING, "the same, at once")
STOPPED: Final = State("stopped", "stopped", Kind.FINAL, "nobody; starting it again is another life")

OPEN: Final = "open"
BEGIN: Final = "begin"
DRAIN: Final = "drain"
INTERRUPT: Final = "interrupt"
FORCE: Final = "force"
END: Final = "end"

CONSUMER_LIFECYCLE: Final = Lifecycle(
    states=(STARTING, RUNNING, DRAINING, INTERRUPTING, FORCING, STOPPED),
    transitions=(
        Transition(OPEN, None, STARTING, "somebody starts it"),
        Transition(BEGIN, STARTING, RUNNING, "its store can be used, and its workers are there"),
        Transition(DRAIN, RUNNING, DRAINING, "SIGINT, SIGHUP, or stop(): claim nothing more, finish what runs"),
        Transition(INTERRUPT, RUNNING, INTERRUPTING, "SIGTERM, or stop(graceful=False): put back what runs"),
        Transition(FORCE, DRAINING, FORCING, "asked again: now"),
        Transition(FORCE, INTERRUPTING, FORCING, "asked again: now"),
        Transition(FORCE, FORCING, FORCING, "and again: without any grace"),
        Transition(END, STARTING, STOPPED, "its store cannot be used"),
        Transition(END, RUNNING, STOPPED, "who looks after its workers has failed"),
        Transition(END, DRAINING, STOPPED, "what ran is finished"),
        Transition(END, INTERRUPTING, STOPPED, "what ran is put back"),
        Transition(END, FORCING, STOPPED, "what ran is put back"),
    ),
)
"""The life of a consumer."""


class ConsumerState:
    """One life; `state` is the name of where it is."""

    def __init__(self) -> None:
        self.state: str = CONSUMER_LIFECYCLE.initial.name

    def go(self, trigger: str) -> None:
        """Take a step; raises `IllegalTransition` if the table has none of that name here."""
        self.state = CONSUMER_LIFECYCLE.next(self.state, trigger).name
