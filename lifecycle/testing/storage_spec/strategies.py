"""What the rules of `StorageSpec` are given: small values, printed with what is not default in them.

Everything is drawn from small pools, so that ids meet again, ranks tie, and moments coincide. Moments are said relative
to the machine's clock.
"""

from copy import copy
from functools import lru_cache
from typing import Final

import attrs
from hypothesis import strategies as st
from hypothesis.vendor.pretty import RepresentationPrinter

from lifecycle.core.policies import Outcome, Revocation
from lifecycle.core.table import CANCEL, COMPLETE, FAIL, INTERRUPT, LOCK_OUT, RATE_LIMIT, RETRY, TIME_OUT
from lifecycle.core.task import NO_DELAY, RetryPolicy, Task, policy_fields
from lifecycle.storage.base import ClaimRequest

__all__ = [
    "ENDINGS", "FUNCTIONS", "IDS", "LEASE", "WORKERS", "Call", "Copy", "End", "Until", "Wish", "calls", "ends",
    "untils", "wishes",
]  # fmt: skip

IDS: Final = ("a", "b", "c", "d", "e", "f", "g", "h")
FUNCTIONS: Final = ("add", "mul")
WORKERS: Final = ("w1", "w2", "w3")
ENDINGS: Final = (COMPLETE, FAIL, TIME_OUT, LOCK_OUT, RATE_LIMIT, CANCEL, INTERRUPT, RETRY)
"""What can end an attempt."""
LEASE: Final = 10.0
"""Seconds that anything is held for."""


def _brief(value: object) -> str:
    if isinstance(value, RetryPolicy):
        return f"RetryPolicy({', '.join(f'{name}={number}' for name, number in policy_fields(value).items())})"
    return repr(value)


@attrs.frozen(repr=False)
class _Brief:
    """Shown with the fields that differ from their defaults."""

    def __repr__(self) -> str:
        values = {field.name: getattr(self, field.name) for field in attrs.fields(type(self))}
        shown = [
            f"{field.name}={_brief(values[field.name])}"
            for field in attrs.fields(type(self))
            if values[field.name] != field.default
        ]
        return f"{type(self).__name__}({', '.join(shown)})"

    def _repr_pretty_(self, printer: RepresentationPrinter, cycle: bool) -> None:
        """Hypothesis would print all fields."""
        del cycle
        printer.text(repr(self))


@attrs.frozen(repr=False)
class Call(_Brief):
    """A task to enqueue."""

    id: str
    function: str = "add"
    priority: int = 0
    eta: float | None = None
    expires: float | None = None
    retries: int = 0
    retry: RetryPolicy = NO_DELAY
    timeout: float | None = None

    def task(self, now: float) -> Task:
        """A new one."""
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
        )


@attrs.frozen(repr=False)
class End(_Brief):
    """How an attempt ends."""

    trigger: str
    result: bytes | None = None
    retry: bool | None = None
    free: bool = False
    delay: float | None = None
    eta: float | None = None
    patience: int = 0
    """How many interruptions are forgiven."""

    def outcome(self, now: float) -> Outcome:
        """The same as a worker says it."""
        eta = None if self.eta is None else now + self.eta
        return Outcome(self.trigger, self.result, self.retry, self.free, self.delay, eta)


@attrs.frozen(repr=False)
class Wish(_Brief):
    """A worker wants work."""

    worker: str
    limit: int = 1
    hold: bool = False
    batchable: tuple[str, ...] | None = None

    def request(self, now: float) -> ClaimRequest:
        """The same, now."""
        return ClaimRequest(self.worker, now, LEASE, self.hold, self.limit, self.batchable)


@attrs.frozen(repr=False)
class Until(_Brief):
    """A revocation."""

    seconds: float | None = None
    once: bool = False

    def revocation(self, now: float) -> Revocation:
        """The same, from now on."""
        return Revocation(None if self.seconds is None else now + self.seconds, self.once)


@attrs.define(eq=False, repr=False)
class Copy:
    """A task as somebody came to know it: current, or long out of date."""

    task: Task
    birth: int
    """Which of all the tasks it is: ids may be used again."""

    def snapshot(self) -> "Copy":
        """The same as it is now, whatever becomes of this one."""
        return Copy(copy(self.task), self.birth)

    def twin(self) -> Task:
        """The task as the model knows it."""
        twin = copy(self.task)
        twin.seq = self.birth
        return twin

    def tampered(self) -> "Copy":
        """The same in the hands of somebody who changes what is not theirs to change."""
        other = attrs.evolve(self.task, name="other", payload=b"?", priority=7, eta=1.0, expires=1.0, timeout=1.0)
        other.canceling = not other.canceling
        return Copy(other, self.birth)

    def __repr__(self) -> str:
        return f"<{self.task.id} {self.task.state} v{self.task.version}>"


# Composed, not built with `builds`: Hypothesis then prints values as they print themselves.


@lru_cache
def calls(ids: tuple[str, ...]) -> st.SearchStrategy[Call]:
    """Calls for these ids; now and then overdue, expired at once, or to expire before their ETA."""
    return _call(st.sampled_from(ids))


@st.composite
def _call(draw: st.DrawFn, ids: st.SearchStrategy[str]) -> Call:
    return Call(
        draw(ids),
        function=draw(_functions),
        priority=draw(_priorities),
        eta=draw(_etas),
        expires=draw(_expiries),
        retries=draw(_retries),
        retry=draw(_policies),
        timeout=draw(_timeouts),
    )


_functions: Final = st.sampled_from(FUNCTIONS)
_priorities: Final = st.sampled_from((0, 0, 1, -1))
_etas: Final = st.sampled_from((None, None, None, 3.0, 10.0, 25.0, 0.0, -4.0))
_expiries: Final = st.sampled_from((None, None, None, None, None, 2.0, 15.0, 0.0))
_retries: Final = st.sampled_from((0, 0, 1, 2))
_policies: Final = st.sampled_from(
    (NO_DELAY, NO_DELAY, RetryPolicy(5.0), RetryPolicy(2.0, backoff=2.0, max_delay=7.0, jitter=0.5))
)
_timeouts: Final = st.sampled_from((None, 1.5))


@st.composite
def ends(draw: st.DrawFn, triggers: tuple[str, ...]) -> End:
    """How an attempt can end."""
    return End(
        draw(st.sampled_from(triggers)),
        result=draw(_results),
        retry=draw(_again),
        free=draw(st.booleans()),
        delay=draw(_delays),
        eta=draw(_retry_etas),
        patience=draw(_patiences),
    )


_results: Final = st.sampled_from((None, b"1", b"2"))
_again: Final = st.sampled_from((None, None, None, True, False))
_delays: Final = st.sampled_from((None, None, 0.0, 5.0))
_retry_etas: Final = st.sampled_from((None, None, None, 3.0, 0.0, -1.0))
_patiences: Final = st.sampled_from((0, 10, 1))


@st.composite
def wishes(draw: st.DrawFn) -> Wish:
    """Any worker, for one task or a few."""
    return Wish(draw(_workers), limit=draw(_limits), hold=draw(st.booleans()), batchable=draw(_ahead))


_workers: Final = st.sampled_from(WORKERS)
_limits: Final = st.sampled_from((1, 1, 2, 3))
_ahead: Final = st.sampled_from((None, None, ("add",), ()))


@st.composite
def untils(draw: st.DrawFn) -> Until:
    """Revocations: for good, for a while, or over before they begin; the first only, or all."""
    return Until(draw(_seconds), once=draw(st.booleans()))


_seconds: Final = st.sampled_from((None, None, 5.0, 20.0, 0.0))
