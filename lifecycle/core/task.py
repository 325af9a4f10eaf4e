"""A task: what was called, how it may be retried, and where it stands. Data only; nothing here decides anything."""

import os
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Final, Self

import attrs

from lifecycle.core.table import LIFECYCLE
from lifecycle.errors import TaskCanceled, Undecodable

__all__ = ["FENCE", "Record", "RetryPolicy", "Task", "new_id"]

Call = tuple[tuple[object, ...], dict[str, object]]
"""Positional and keyword arguments."""

_VARIANT: Final = "89ab"

FENCE: Final = ("id", "seq", "version", "state", "worker")
"""The fields of a task that a store compares with its row before it accepts a move of the task, or its release.

The version alone is not enough: after a flush the same id may be used again, and a store that was set back to a backup
may give one version out twice.
"""


def new_id(now: float) -> str:
    """A new task id: a UUID of version 7 (RFC 9562) without its dashes, 32 hexadecimal digits.

    Ids made later sort later, to the millisecond, so that a million of them stay cheap to index.
    """
    noise = os.urandom(10).hex()
    return f"{int(now * 1000):012x}7{noise[:3]}{_VARIANT[ord(noise[19]) & 3]}{noise[3:18]}"


@attrs.frozen
class RetryPolicy:
    """How long to wait before a retry; all in seconds."""

    delay: float = 0.0
    """Before the first retry."""
    backoff: float = 0.0
    """Each later retry waits this many times longer than the one before; 0 and 1: all wait alike."""
    max_delay: float = 86_400.0
    """No retry waits longer."""
    jitter: float = 0.0
    """Up to this share of the wait is added at random (0.1: up to ten per cent), so that a crowd spreads out."""


NO_DELAY: Final = RetryPolicy()


@attrs.define(eq=False)
class Task:
    """One call of a function, on its way through the lifecycle.

    What a handler, a hook or a look-up gets is a copy: what it changes there changes nothing in the store. Before it is
    enqueued a task is yours to change (``task = add.s(1, 2); task.priority = 5; queue.enqueue(task)``).
    """

    id: str
    name: str
    """The function's name in its queue."""
    payload: bytes = attrs.field(default=b"", repr=False)
    """The arguments as stored; `args` and `kwargs` decode them."""
    state: str | None = None
    """``None`` until it is enqueued."""
    eta: float | None = None
    """Not before this moment (UTC seconds)."""
    expires: float | None = None
    """From this moment on (UTC seconds) it is not started any more."""
    priority: int = 0
    """Higher goes first; the same priority goes by age."""
    retries: int = 0
    """Retries left."""
    retry: RetryPolicy = attrs.field(default=NO_DELAY, repr=False)
    timeout: float | None = None
    """Seconds that one attempt may take."""
    attempt: int = 0
    """How often it was started."""
    interruptions: int = 0
    """How many of these attempts were cut off by the end of their worker."""
    worker: str | None = None
    """Who made its last transition: while it runs, its worker."""
    version: int = attrs.field(default=0, repr=False)
    """How many transitions it has made. Storage compares it with its own before it accepts another."""
    lease: float | None = attrs.field(default=None, repr=False)
    """While somebody holds it: until when (UTC seconds)."""
    seq: int | None = attrs.field(default=None, repr=False)
    """Its place in the store, where the store has places."""
    canceling: bool = attrs.field(default=False, repr=False)
    """Somebody has asked, while it ran, that it be called off; until it comes to rest."""
    loads: Callable[[bytes], object] | None = attrs.field(default=None, repr=False)
    """How to decode the payload; the queue that it belongs to sets it."""
    cancel_requested: Callable[[], bool] | None = attrs.field(default=None, repr=False)
    """Has anybody called it off? Its worker sets it on what the task's function is given."""
    _call: Call | None = attrs.field(default=None, repr=False)

    @property
    def fence(self) -> tuple[str, int | None, int, str | None, str | None]:
        """The fields that tell this very task, unmoved, from any other: the values of `FENCE`."""
        return self.id, self.seq, self.version, self.state, self.worker

    def __copy__(self) -> Self:
        """Ten times as fast as what copies objects in general: every handler of every signal gets one."""
        return type(self)(*_values(self))

    @property
    def call(self) -> Call:
        """Positional and keyword arguments. Raises `Undecodable` if the stored ones cannot be read."""
        if self._call is None:
            # Decoded late: a task that is revoked or expired never pays for it.
            self._call = _shaped(self.loads(self.payload)) if self.loads else ((), {})
        return self._call

    @property
    def args(self) -> tuple[object, ...]:
        """Positional arguments; raises `Undecodable`, see `call`."""
        return self.call[0]

    @property
    def kwargs(self) -> dict[str, object]:
        """Keyword arguments; raises `Undecodable`, see `call`."""
        return self.call[1]

    @property
    def retry_delay(self) -> float:
        """Seconds before the first retry."""
        return self.retry.delay

    def check_canceled(self) -> None:
        """Raise `TaskCanceled` if this task, which must be the one that runs, has been called off.

        For a body that cannot be interrupted everywhere: it asks where it can stop. Costs no call to the store; it is
        known here within a second. A task that does not run, or that another worker runs, is never known to be so.
        """
        if self.cancel_requested is not None and self.cancel_requested():
            raise TaskCanceled

    def __str__(self) -> str:
        return f"task {self.id} ({self.name})"


_values: Final = attrgetter(*(field.name for field in attrs.fields(Task)))


def _shaped(value: object) -> Call:
    """`value`, if it is arguments and not something else that can be read."""
    match value:
        case (tuple() as args, dict() as kwargs) if not kwargs or all(type(name) is str for name in kwargs):
            return args, kwargs
    raise Undecodable("the stored arguments are none: another serializer's, or damaged")


@attrs.frozen
class Record:
    """A line of a task's history: a state it entered."""

    state: str
    at: float
    """When (UTC seconds, by the clock of whoever made the transition)."""
    worker: str
    """Who made the transition: a worker, or the process that enqueued, retried or recovered it."""
    attempt: int
    """How often the task had been started by then."""


# History is stored as text that is appended to, in the row that is written anyway: it costs no write of its own, and
# can be read in any database shell. One line a record: state, time, attempt, worker; separated by tabs.


def history_line(state: str, at: float, attempt: int, worker: str) -> str:
    """A record as it is stored."""
    if not worker.isprintable() or "\\" in worker:  # a name of somebody's own making must not look like two lines
        worker = worker.encode("unicode_escape").decode()
    return f"{state}\t{at!r}\t{attempt}\t{worker}\n"


def read_history(text: str) -> list[Record]:
    """The records of a stored history, oldest first."""
    records = []
    for line in text.split("\n")[:-1]:
        state, at, attempt, worker = line.split("\t")
        if "\\" in worker:
            worker = worker.encode().decode("unicode_escape")
        records.append(Record(LIFECYCLE.state(state).name, float(at), worker, int(attempt)))
    return records


def policy_fields(policy: RetryPolicy) -> Mapping[str, float]:
    """The fields of a policy that differ from the default's, by name."""
    return attrs.asdict(policy, filter=lambda attribute, value: value != attribute.default)
