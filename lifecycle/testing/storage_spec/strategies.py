"""The arguments of the rules of `StorageSpec`: small values, printed without their default fields.

All are drawn from small sets, so that ids are used again, ranks are equal, and times coincide. Times are relative to
the machine's clock.
"""

from collections.abc import Sequence
from copy import copy
from functools import lru_cache
from typing import Final

import attrs
from hypothesis import strategies as st
from hypothesis.vendor.pretty import RepresentationPrinter

from lifecycle.core.policies import Outcome, Revocation
from lifecycle.core.step import Inputs, Step
from lifecycle.core.table import CANCEL, COMPLETE, FAIL, INTERRUPT, LOCK_OUT, RATE_LIMIT, RETRY, TIME_OUT
from lifecycle.core.task import NO_DELAY, RetryPolicy, Task, policy_fields
from lifecycle.storage.base import ClaimRequest

__all__ = [
    "ENDING_TRIGGERS", "FUNCTIONS", "IDS", "LEASE_SECONDS", "WORKERS", "Ending", "NewTask", "RevocationPeriod",
    "TaskCopy", "WorkerRequest", "endings", "new_tasks", "revocation_periods", "worker_requests", "workflow_tasks",
    "workflows",
]  # fmt: skip

IDS: Final = ("a", "b", "c", "d", "e", "f", "g", "h")
FUNCTIONS: Final = ("add", "mul")
WORKERS: Final = ("w1", "w2", "w3")
ENDING_TRIGGERS: Final = (COMPLETE, FAIL, TIME_OUT, LOCK_OUT, RATE_LIMIT, CANCEL, INTERRUPT, RETRY)
"""The triggers that end an attempt."""
LEASE_SECONDS: Final = 10.0
"""Length of every lease and hold."""


def _short_repr(value: object) -> str:
    if isinstance(value, RetryPolicy):
        return f"RetryPolicy({', '.join(f'{name}={number}' for name, number in policy_fields(value).items())})"
    return repr(value)


@attrs.frozen(repr=False)
class _ShortRepr:
    """Base of classes whose text shows only the fields that differ from their defaults."""

    def __repr__(self) -> str:
        values = {field.name: getattr(self, field.name) for field in attrs.fields(type(self))}
        shown = [
            f"{field.name}={_short_repr(values[field.name])}"
            for field in attrs.fields(type(self))
            if values[field.name] != field.default
        ]
        return f"{type(self).__name__}({', '.join(shown)})"

    def _repr_pretty_(self, printer: RepresentationPrinter, cycle: bool) -> None:
        """Print the short text, where Hypothesis would print all fields."""
        del cycle
        printer.text(repr(self))


@attrs.frozen(repr=False)
class NewTask(_ShortRepr):
    """A task to enqueue, with times relative to now."""

    id: str
    function: str = "add"
    priority: int = 0
    eta: float | None = None
    expires: float | None = None
    retries: int = 0
    retry: RetryPolicy = NO_DELAY
    timeout: float | None = None
    after: tuple[str, ...] = ()
    """Ids of the tasks that this one waits for."""
    passes: bool = False
    """True if their results are passed to this one."""
    on_failure: bool = False

    def task(self, now: float, dependents: tuple[str, ...] = ()) -> Task:
        """Make the task; `dependents`: ids of the tasks that wait for it."""
        step = None
        if self.after or dependents:
            inputs: Inputs = [*self.after] if self.passes and self.after else None
            after = () if inputs else self.after
            step = Step(inputs, len(self.after), dependents, self.on_failure, None, after)
        return Task(
            self.id,
            self.function,
            self.id.encode(),
            eta=None if self.eta is None else now + self.eta,
            expires=None if self.expires is None else now + self.expires,
            priority=self.priority,
            retries=self.retries,
            retry=self.retry,
            timeout=self.timeout,
            step=step,
        )


def workflow_tasks(calls: Sequence[NewTask], now: float) -> list[Task]:
    """Make the tasks of a workflow, in the order of `calls`."""
    return [call.task(now, tuple(other.id for other in calls if call.id in other.after)) for call in calls]


@attrs.frozen(repr=False)
class Ending(_ShortRepr):
    """The end of an attempt, with times relative to now."""

    trigger: str
    result: bytes | None = None
    retry: bool | None = None
    free: bool = False
    delay: float | None = None
    eta: float | None = None
    max_interruptions: int = 0
    """Interruptions after which a task is not recovered any more."""
    begun: bool = True

    def outcome(self, now: float) -> Outcome:
        """Make the outcome."""
        eta = None if self.eta is None else now + self.eta
        return Outcome(self.trigger, self.result, self.retry, self.free, self.delay, eta, self.begun)


@attrs.frozen(repr=False)
class WorkerRequest(_ShortRepr):
    """A worker's claim."""

    worker: str
    limit: int = 1
    hold: bool = False
    batchable: tuple[str, ...] | None = None
    skip_names: frozenset[str] = frozenset()

    def request(self, now: float) -> ClaimRequest:
        """Make the claim request."""
        return ClaimRequest(self.worker, now, LEASE_SECONDS, self.hold, self.limit, self.batchable, self.skip_names)


@attrs.frozen(repr=False)
class RevocationPeriod(_ShortRepr):
    """A revocation, with its end relative to now."""

    seconds: float | None = None
    once: bool = False

    def revocation(self, now: float) -> Revocation:
        """Make the revocation."""
        return Revocation(None if self.seconds is None else now + self.seconds, self.once)


@attrs.define(eq=False, repr=False)
class TaskCopy:
    """A copy of a task that some process holds: current or stale."""

    task: Task
    model_seq: int
    """The model's `seq` of the task: ids may be used again."""

    def snapshot(self) -> "TaskCopy":
        """Return a copy that later changes of this one do not change."""
        return TaskCopy(copy(self.task), self.model_seq)

    def model_task(self) -> Task:
        """Return the task with the model's `seq`."""
        model_task = copy(self.task)
        model_task.seq = self.model_seq
        return model_task

    def tampered(self) -> "TaskCopy":
        """Return a copy whose fields a careless function has changed."""
        other = attrs.evolve(self.task, name="other", payload=b"?", priority=7, eta=1.0, expires=1.0, timeout=1.0)
        other.canceling = not other.canceling
        return TaskCopy(other, self.model_seq)

    def __repr__(self) -> str:
        return f"<{self.task.id} {self.task.state} v{self.task.version}>"


# `composite`, not `builds`: so Hypothesis prints the text of the values.


@lru_cache
def new_tasks(ids: tuple[str, ...]) -> st.SearchStrategy[NewTask]:
    """New tasks with these ids; some are overdue, expired, or expire before their ETA."""
    return _new_task(st.sampled_from(ids))


@st.composite
def _new_task(draw: st.DrawFn, ids: st.SearchStrategy[str]) -> NewTask:
    return NewTask(
        draw(ids),
        function=draw(_functions),
        priority=draw(_priorities),
        eta=draw(_etas),
        expires=draw(_expiries),
        retries=draw(_retries),
        retry=draw(_policies),
        timeout=draw(_timeouts),
    )


@st.composite
def workflows(draw: st.DrawFn, ids: tuple[str, ...]) -> list[NewTask]:
    """New tasks with some of these ids; most wait for some of the tasks before them, a few for none."""
    calls = draw(st.lists(new_tasks(ids), min_size=2, max_size=5, unique_by=lambda call: call.id))
    for number in range(1, len(calls)):
        before = [call.id for call in calls[:number]]
        after = draw(st.lists(st.sampled_from(before), max_size=3, unique=True))
        if after:
            calls[number] = attrs.evolve(
                calls[number],
                after=tuple(after),
                passes=draw(st.booleans()),
                on_failure=draw(_on_failure),
            )
    return calls


_on_failure: Final = st.sampled_from((False, False, True))
_functions: Final = st.sampled_from(FUNCTIONS)
_priorities: Final = st.sampled_from((0, 0, 1, -1))
_etas: Final = st.sampled_from((None, None, None, 3.0, 10.0, 25.0, 0.0, -4.0))
_expiries: Final = st.sampled_from((None, None, None, None, None, 2.0, 15.0, 0.0))
_retries: Final = st.sampled_from((0, 0, 1, 2))
_policies: Final = st.sampled_from(
    (
        NO_DELAY,
        NO_DELAY,
        RetryPolicy(5.0),
        RetryPolicy(2.0, backoff=2.0, max_delay=7.0, jitter=0.5),
        RetryPolicy(1.0, expires_after=4.0),
    )
)
_timeouts: Final = st.sampled_from((None, 1.5))


@st.composite
def endings(draw: st.DrawFn, triggers: tuple[str, ...]) -> Ending:
    """Ends of an attempt with these triggers."""
    return Ending(
        draw(st.sampled_from(triggers)),
        result=draw(_results),
        retry=draw(_retry_choices),
        free=draw(st.booleans()),
        delay=draw(_delays),
        eta=draw(_retry_etas),
        max_interruptions=draw(_max_interruptions),
        begun=draw(st.booleans()),
    )


_results: Final = st.sampled_from((None, b"1", b"2"))
_retry_choices: Final = st.sampled_from((None, None, None, True, False))
_delays: Final = st.sampled_from((None, None, 0.0, 5.0))
_retry_etas: Final = st.sampled_from((None, None, None, 3.0, 0.0, -1.0))
_max_interruptions: Final = st.sampled_from((0, 10, 1))


@st.composite
def worker_requests(draw: st.DrawFn) -> WorkerRequest:
    """Claims of any worker, for one task or a few."""
    return WorkerRequest(
        draw(_workers),
        limit=draw(_limits),
        hold=draw(st.booleans()),
        batchable=draw(_batchables),
        skip_names=draw(_skip_names),
    )


_workers: Final = st.sampled_from(WORKERS)
_limits: Final = st.sampled_from((1, 1, 2, 3))
_batchables: Final = st.sampled_from((None, None, ("add",), ()))
_skip_names: Final = st.sampled_from(
    (frozenset[str](), frozenset[str](), frozenset(("add",)), frozenset(("mul", "?")), frozenset(FUNCTIONS))
)


@st.composite
def revocation_periods(draw: st.DrawFn) -> RevocationPeriod:
    """Revocations: without end, for a while, or already over; of the next task only, or of all."""
    return RevocationPeriod(draw(_seconds), once=draw(st.booleans()))


_seconds: Final = st.sampled_from((None, None, 5.0, 20.0, 0.0))
