"""What the rules of `StorageSpec` are given: small values, printed with what is not default in them.

Everything is drawn from small pools, so that ids meet again, ranks tie, and moments coincide. Moments are said relative
to the machine's clock.
"""

from functools import lru_cache
from typing import Final

import attrs
from hypothesis import strategies as st

from lifecycle.policies import Outcome, Revocation
from lifecycle.storage.base import Claimant, Target
from lifecycle.table import CANCEL, COMPLETE, FAIL, INTERRUPT, LOCK_OUT, RATE_LIMIT, RETRY, TIME_OUT
from lifecycle.task import NO_DELAY, RetryPolicy, Task

__all__ = [
    "ENDINGS", "FUNCTIONS", "IDS", "LEASE", "WORKERS", "Call", "Copy", "End", "Until", "Wish", "calls", "ends",
    "targets", "untils", "wishes",
]  # fmt: skip

IDS: Final = ("a", "b", "c", "d", "e", "f", "g", "h")
FUNCTIONS: Final = ("add", "mul")
WORKERS: Final = ("w1", "w2", "w3")
ENDINGS: Final = (COMPLETE, FAIL, TIME_OUT, LOCK_OUT, RATE_LIMIT, CANCEL, INTERRUPT, RETRY)
"""What can end an attempt."""
LEASE: Final = 10.0
"""Seconds that anything is held for."""


class _Brief:
    """Shown with the fields that differ from their defaults."""

    def __repr__(self) -> str:
        shown = [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in attrs.fields(type(self))
            if getattr(self, field.name) != field.default
        ]
        return f"{type(self).__name__}({', '.join(shown)})"


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
    patience: int = 10
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
    ahead: tuple[str, ...] | None = None

    def claimant(self, now: float) -> Claimant:
        """The same, now."""
        return Claimant(self.worker, now, LEASE, self.hold, self.limit, self.ahead)


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
        return Copy(attrs.evolve(self.task), self.birth)

    def twin(self) -> Task:
        """The task as the model knows it."""
        return attrs.evolve(self.task, seq=self.birth)

    def tampered(self) -> "Copy":
        """The same in the hands of somebody who changes what is not theirs to change."""
        other = attrs.evolve(self.task, name="other", payload=b"?", priority=7, eta=1.0, expires=1.0, timeout=1.0)
        return Copy(other, self.birth)

    def __repr__(self) -> str:
        return f"<{self.task.id} {self.task.state} v{self.task.version}>"


_POLICIES: Final = (
    NO_DELAY, NO_DELAY, RetryPolicy(5.0), RetryPolicy(2.0, backoff=2.0, max_delay=7.0, jitter=0.5),
)  # fmt: skip


@lru_cache
def calls(ids: tuple[str, ...]) -> st.SearchStrategy[Call]:
    """A call for one of these ids; now and then overdue, expired at once, or to expire before its ETA."""
    return st.builds(
        Call,
        id=st.sampled_from(ids),
        function=st.sampled_from(FUNCTIONS),
        priority=st.sampled_from((0, 0, 1, -1)),
        eta=st.sampled_from((None, None, None, 3.0, 10.0, 25.0, 0.0, -4.0)),
        expires=st.sampled_from((None, None, None, None, 2.0, 6.0, 15.0, 0.0)),
        retries=st.sampled_from((0, 1, 2)),
        retry=st.sampled_from(_POLICIES),
        timeout=st.sampled_from((None, 1.5)),
    )


ends: Final = st.builds(
    End,
    trigger=st.sampled_from(ENDINGS),
    result=st.sampled_from((None, b"1", b"2")),
    retry=st.sampled_from((None, None, None, True, False)),
    free=st.booleans(),
    delay=st.sampled_from((None, None, 0.0, 5.0)),
    eta=st.sampled_from((None, None, None, 3.0, 0.0, -1.0)),
    patience=st.sampled_from((10, 1, 0)),
)

wishes: Final = st.builds(
    Wish,
    worker=st.sampled_from(WORKERS),
    limit=st.sampled_from((1, 1, 2, 3)),
    hold=st.booleans(),
    ahead=st.sampled_from((None, None, ("add",), ())),
)

targets: Final = st.builds(Target, st.just(value=False), st.sampled_from(IDS)) | st.builds(
    Target, st.just(value=True), st.sampled_from(FUNCTIONS)
)

untils: Final = st.builds(Until, seconds=st.sampled_from((None, None, 5.0, 20.0, 0.0)), once=st.booleans())
