"""Task: the call of a function, its retry policy, its state and its history. Data only, without decisions."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import attrgetter
from typing import Final, Self

import attrs

from lifecycle.core.nodes import Chained, Place
from lifecycle.core.step import Step
from lifecycle.core.table import LIFECYCLE
from lifecycle.errors import TaskCanceled, Undecodable
from lifecycle.escaping import printable

__all__ = ["FENCE", "Call", "Record", "RetryPolicy", "Task", "as_call", "new_id"]

Call = tuple[tuple[object, ...], dict[str, object]]
"""Positional and keyword arguments."""

_RANDOM_BITS: Final = (1 << 76) - 1 ^ (0b11 << 62)
_VERSION_AND_VARIANT: Final = 7 << 76 | 0b10 << 62

FENCE: Final = ("id", "seq", "version", "state", "worker")
"""Fields of a task that a store compares with its row before it accepts a move or a release of the task.

The version alone is not enough: after a flush, the same id may be used again, and a store that was restored from a
backup may hand out a version twice.
"""


def new_id(now: float) -> str:
    """Return a new task id: a UUID of version 7 (RFC 9562) without dashes, 32 hexadecimal digits.

    Later ids sort after earlier ids, to the millisecond, so that an index stays cheap with a million ids. The digits
    after the time are the system's random numbers: nobody can guess an id from others.
    """
    return f"{int(now * 1000) << 80 | _VERSION_AND_VARIANT | int.from_bytes(os.urandom(10)) & _RANDOM_BITS:032x}"


@attrs.frozen
class RetryPolicy:
    """Delays before retries, and the expiry of retries, in seconds."""

    delay: float = 0.0
    """Delay before the first retry."""
    backoff: float = 0.0
    """Factor between the delays of successive retries; 0 and 1: all delays are equal."""
    max_delay: float = 86_400.0
    """Upper limit of the delay, jitter included."""
    jitter: float = 0.0
    """Largest share of the delay that is added at random (0.1: up to 10 %), so that retries spread out."""
    expires_after: float | None = None
    """Time from the moment when the task, or its retry, is due to its expiry; ``None``: the expiry is a fixed moment,
    or there is none."""


NO_DELAY: Final = RetryPolicy()


@attrs.define(eq=False)
class Task(Chained):
    """Call of a function, on its way through the lifecycle.

    Handlers, hooks and look-ups get a copy: changes of the copy are not stored. Before a task is enqueued, its fields
    may be changed (``task = add.s(1, 2); task.priority = 5; queue.enqueue(task)``).
    """

    id: str
    name: str
    """Name of the function in its queue."""
    payload: bytes = attrs.field(default=b"", repr=False)
    """Serialized arguments; `args` and `kwargs` decode them."""
    state: str | None = None
    """Name of the state; ``None`` until the task is enqueued."""
    eta: float | None = None
    """Earliest start (UTC seconds)."""
    expires: float | None = None
    """Moment (UTC seconds) from which the task is not started any more. An expiry that counts from the moment when the
    task is due is set when the task is enqueued, and counts anew for each retry."""
    priority: int = 0
    """Higher priorities start first; tasks of one priority start by age."""
    retries: int = 0
    """Number of retries left."""
    retry: RetryPolicy = attrs.field(default=NO_DELAY, repr=False)
    timeout: float | None = None
    """Time limit of one attempt, in seconds."""
    attempt: int = 0
    """Number of starts so far."""
    interruptions: int = 0
    """Number of attempts that ended because their worker ended."""
    worker: str | None = None
    """Name of the worker or process that made the last transition; while the task runs, its worker."""
    version: int = attrs.field(default=0, repr=False)
    """Number of transitions so far. A store accepts a move only for the version that it has stored."""
    lease: float | None = attrs.field(default=None, repr=False)
    """End of the lease (UTC seconds); ``None`` while no worker holds the task."""
    seq: int | None = attrs.field(default=None, repr=False)
    """Sequence number in the store, if the store numbers its tasks."""
    canceling: bool = attrs.field(default=False, repr=False)
    """True if cancellation was requested while the task ran; False again once the task is in a resting state."""
    enqueued_at: float | None = attrs.field(default=None, repr=False)
    """Time when the task was enqueued (UTC seconds); ``None`` before that."""
    step: Step | None = attrs.field(default=None, repr=False)
    """Place of the task in a workflow; ``None`` for a task of its own."""
    loads: Callable[[bytes], object] | None = attrs.field(default=None, repr=False)
    """Decoder of `payload`, set by the task's queue."""
    cancel_requested: Callable[[], bool] | None = attrs.field(default=None, repr=False)
    """Return whether cancellation was requested; set by the worker on the copy that runs."""
    _call: Call | None = attrs.field(default=None, repr=False)
    _local: dict[str, object] | None = attrs.field(default=None, repr=False)
    place: Place | None = attrs.field(default=None, repr=False)
    """Place in a workflow that the program writes, until the task is enqueued; copies have none."""

    @property
    def fence(self) -> tuple[str, int | None, int, str | None, str | None]:
        """Values of the fields `FENCE`: they identify this task at this version."""
        return self.id, self.seq, self.version, self.state, self.worker

    def __copy__(self) -> Self:
        """Return a copy with an empty `local`; ten times as fast as a generic copy."""
        return type(self)(*_values_to_copy(self))

    def view(self) -> Self:
        """Return a copy for a handler, a hook or the function; all views of one task object share `local`."""
        view = self.__copy__()
        view._local = self.local
        return view

    @property
    def local(self) -> dict[str, object]:
        """Values that handlers, hooks and the function keep for one another: empty at first, and never stored.

        One attempt has one dict, from `executing` to the last signal before the next attempt, in the worker's process.
        The handlers of `enqueued` get the dict of the task object that was enqueued.
        """
        if self._local is None:
            self._local = {}
        return self._local

    @property
    def call(self) -> Call:
        """Positional and keyword arguments. Raises `Undecodable` if the stored arguments cannot be read."""
        if self._call is None:
            # Decoded at first use: a task that is revoked or expired never needs the arguments.
            self._call = as_call(self.loads(self.payload)) if self.loads else ((), {})
        return self._call

    @property
    def args(self) -> tuple[object, ...]:
        """Positional arguments; raises `Undecodable` if the stored arguments cannot be read."""
        return self.call[0]

    @property
    def kwargs(self) -> dict[str, object]:
        """Keyword arguments; raises `Undecodable` if the stored arguments cannot be read."""
        return self.call[1]

    @property
    def retry_delay(self) -> float:
        """Delay before the first retry, in seconds."""
        return self.retry.delay

    def check_canceled(self) -> None:
        """Raise `TaskCanceled` if cancellation of this task was requested; the task must be the one that runs.

        For a function that may stop only at certain places: the function calls this there. No call to the store is
        made; a request is known here within a second. On any other task object this never raises.
        """
        if self.cancel_requested is not None and self.cancel_requested():
            raise TaskCanceled

    def __str__(self) -> str:
        return printable(f"task {self.id} ({self.name})")


_values_to_copy: Final = attrgetter(*(field.name for field in attrs.fields(Task)[:-2]))  # neither _local nor place


def as_call(value: object) -> Call:
    """Return `value` if it has the shape of arguments; raises `Undecodable` for any other value."""
    match value:
        case (tuple() as args, dict() as kwargs) if not kwargs or all(type(name) is str for name in kwargs):
            return args, kwargs
    raise Undecodable("the stored bytes are no arguments: another serializer wrote them, or they are damaged")


@attrs.frozen
class Record:
    """Line of a task's history: the entry into a state."""

    state: str
    at: float
    """Time of the transition (UTC seconds), by the clock of the worker or process that made it."""
    worker: str
    """Worker, or process that enqueued, retried or recovered the task."""
    attempt: int
    """Number of starts of the task up to then."""
    left_out: int = 0
    """Number of records directly before this one that a long history leaves out."""


def numbered(records: Iterable[Record]) -> Iterator[tuple[int, Record]]:
    """Yield each record of a history with its number in the whole history; the first is 1, the last the version."""
    number = 0
    for record in records:
        number += 1 + record.left_out
        yield number, record


# The history is text in the task's row, which is written anyway: appending a record needs no write of its own, and any
# database shell shows the text. One line for each record: state, time, attempt and worker, separated by tabs. A history
# that grew with each attempt would make each attempt slower than the one before: from time to time the middle is left
# out. The line after the gap has a fifth field, the number of records that are left out.

HISTORY_HEAD: Final = 20
"""Number of records at the beginning of a long history that are kept."""
HISTORY_TAIL: Final = 40
"""Number of records that are kept before the last multiple of `HISTORY_STEP`, and all after it."""
HISTORY_STEP: Final = 20
"""The middle is left out whenever the version passes a multiple of this number."""


def history_line(state: str, at: float, attempt: int, worker: str) -> str:
    """Return a record as stored text."""
    if not worker.isprintable() or "\\" in worker:  # a worker's name must not break the line
        worker = worker.encode("unicode_escape").decode()
    return f"{state}\t{at!r}\t{attempt}\t{worker}\n"


def read_history(text: str) -> list[Record]:
    """Return the records of a stored history, oldest first."""
    records = []
    for line in text.split("\n")[:-1]:
        state, at, attempt, worker, *gap = line.split("\t")
        if "\\" in worker:
            worker = worker.encode().decode("unicode_escape")
        records.append(Record(LIFECYCLE.state(state).name, float(at), worker, int(attempt), *map(int, gap)))
    return records


def is_history_cut(before: int, after: int) -> bool:
    """Return whether a store leaves out the middle of a history at a move between these versions of the task."""
    return after > HISTORY_HEAD + HISTORY_TAIL and before // HISTORY_STEP != after // HISTORY_STEP


def cut_history(text: str) -> str:
    """Return a stored history without its middle. The version alone decides which records are left out."""
    lines = text.split("\n")[:-1]
    version = sum(1 + _fields_and_gap(line)[-1] for line in lines)
    kept = HISTORY_TAIL + version % HISTORY_STEP
    middle, tail = lines[HISTORY_HEAD:-kept], lines[-kept:]
    if not middle:
        return text
    *fields, gap = _fields_and_gap(tail[0])
    left_out = gap + sum(1 + _fields_and_gap(line)[-1] for line in middle)
    tail[0] = "\t".join([*fields, str(left_out)])
    return "\n".join([*lines[:HISTORY_HEAD], *tail, ""])


def lines_after(text: str, version: int) -> list[str]:
    """Return the lines of a stored history after a version of its task; none if the first of them is left out."""
    number = 0
    lines = text.split("\n")[:-1]
    for place, line in enumerate(lines):
        number += _fields_and_gap(line)[-1]
        if number >= version:
            return [f"{line}\n" for line in lines[place:]] if number == version else []
        number += 1
    return []


def _fields_and_gap(line: str) -> tuple[str, str, str, str, int]:
    state, at, attempt, worker, *gap = line.split("\t")
    return state, at, attempt, worker, sum(map(int, gap))


def policy_fields(policy: RetryPolicy) -> Mapping[str, float]:
    """Return the fields of a policy that differ from the defaults, by name."""
    return attrs.asdict(policy, filter=lambda attribute, value: value != attribute.default)
