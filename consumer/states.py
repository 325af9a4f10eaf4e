"""The states of a consumer: a `Lifecycle` like that of tasks, with the same checks.

Each run of a consumer goes through the table anew, so a stopped consumer can be started again.
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

_SUPERVISION: Final = "its supervision, once the last worker has ended"

STARTING: Final = State("starting", "starting", Kind.WAITING, "the consumer, once its store has answered")
RUNNING: Final = State("running", "running", Kind.RUNNING, "a request to stop")
DRAINING: Final = State("draining", "draining", Kind.RUNNING, _SUPERVISION)
INTERRUPTING: Final = State("interrupting", "interrupting", Kind.RUNNING, f"{_SUPERVISION}, or once the grace is over")
FORCING: Final = State("forcing", "forcing", Kind.RUNNING, f"{_SUPERVISION}, at once")
STOPPED: Final = State("stopped", "stopped", Kind.FINAL, "nothing; another start is a new run")

OPEN: Final = "open"
BEGIN: Final = "begin"
DRAIN: Final = "drain"
INTERRUPT: Final = "interrupt"
FORCE: Final = "force"
END: Final = "end"

CONSUMER_LIFECYCLE: Final = Lifecycle(
    states=(STARTING, RUNNING, DRAINING, INTERRUPTING, FORCING, STOPPED),
    transitions=(
        Transition(OPEN, None, STARTING, "the consumer is started"),
        Transition(BEGIN, STARTING, RUNNING, "its store can be used, and its workers are started"),
        Transition(DRAIN, RUNNING, DRAINING, "SIGINT, SIGHUP, or stop(): claim nothing more, finish the running tasks"),
        Transition(INTERRUPT, RUNNING, INTERRUPTING, "SIGTERM, or stop(graceful=False): requeue the running tasks"),
        Transition(FORCE, DRAINING, FORCING, "a second request: at once"),
        Transition(FORCE, INTERRUPTING, FORCING, "a second request: at once"),
        Transition(FORCE, FORCING, FORCING, "a third request: without any grace"),
        Transition(END, STARTING, STOPPED, "its store cannot be used"),
        Transition(END, RUNNING, STOPPED, "its supervision has failed"),
        Transition(END, DRAINING, STOPPED, "the running tasks are finished"),
        Transition(END, INTERRUPTING, STOPPED, "the running tasks are requeued"),
        Transition(END, FORCING, STOPPED, "the running tasks are requeued"),
    ),
)
"""The table of a consumer's states."""


class ConsumerState:
    """The state of one run; `state` is its name."""

    def __init__(self) -> None:
        self.state: str = CONSUMER_LIFECYCLE.initial.name

    def go(self, trigger: str) -> None:
        """Enter the next state; raise `IllegalTransition` if the table has no such trigger in this state."""
        self.state = CONSUMER_LIFECYCLE.next(self.state, trigger).name
