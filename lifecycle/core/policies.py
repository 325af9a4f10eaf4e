"""What may happen to a task now: pure functions from a task, and the time, to the transitions that follow.

`admit` says what a claim does, `settle` what an outcome leads to, `recover` what becomes of an attempt whose worker is
gone, `retry` what an operator's second chance is, `visibility` when a claim shall look at a task at all. All they
return is data (`Move`): storage commits it or refuses it, whole.

No clock, no randomness, no storage: `now` and `jitter` are arguments.
"""

from typing import Final

import attrs

from lifecycle.core.machine import IllegalTransition
from lifecycle.core.table import (
    CANCEL,
    COMPLETE,
    ENQUEUE,
    EXECUTING,
    EXPIRE,
    INTERRUPT,
    LIFECYCLE,
    QUEUED,
    RECOVER,
    RETRY,
    REVOKE,
    SCHEDULE,
    START,
    Kind,
    State,
)
from lifecycle.core.task import RetryPolicy, Task, history_line

__all__ = [
    "REVOKED_RANK", "Move", "Outcome", "Revocation", "admit", "backoff", "claimed", "enqueued", "recover", "retry", "settle",
    "visibility",
]  # fmt: skip

WAITING: Final = frozenset(state.name for state in LIFECYCLE.of_kind(Kind.WAITING))
OUTCOMES: Final = frozenset(state.name for state in LIFECYCLE.of_kind(Kind.OUTCOME))
AT_REST: Final = frozenset(state.name for state in LIFECYCLE.of_kind(Kind.OUTCOME, Kind.FINAL))
"""Where a task may stay for good."""

_FREES_LOCKS: Final = frozenset((INTERRUPT, CANCEL))

FOREVER: Final = float("inf")
REVOKED_RANK: Final = 2**62
"""The rank of a task that is revoked by itself: it is dealt with before any that shall run."""


@attrs.frozen
class Revocation:
    """Somebody said that a task, or every task of a function, shall not run."""

    until: float | None = None
    """Up to this moment (UTC seconds); ``None``: for good."""
    once: bool = False
    """Spent on the first task that it stops."""

    def holds(self, at: float) -> bool:
        """Does it stop a task that would run at that moment?"""
        return self.until is None or at < self.until


@attrs.frozen
class Outcome:
    """How an attempt ended, in the terms of the table."""

    trigger: str
    """What it does to the task: `complete`, `fail`, `time_out`, `interrupt`, `retry` (the task asked for it), …"""
    result: bytes | None = None
    """What the result handle will read: the value, or the error. ``None`` keeps what an earlier attempt left there."""
    retry: bool | None = None
    """``None``: retry if a retry is left. ``True``: retry in any case. ``False``: do not."""
    free: bool = False
    """A retry costs none of those left."""
    delay: float | None = None
    """Seconds until the retry; ``None``: as the task's own policy says."""
    eta: float | None = None
    """The moment of the retry (UTC seconds); goes before `delay`."""


@attrs.define
class Move:
    """A path of transitions that one task takes in one commit, and what changes with it."""

    path: tuple[str, ...]
    """The triggers, in order."""
    states: tuple[State, ...]
    """The states they enter, in order."""
    at: float
    """When (UTC seconds)."""
    worker: str
    """Who makes it."""
    attempt: int
    """The task's fields after the move; so are those that follow."""
    retries: int
    interruptions: int
    eta: float | None
    lease: float | None
    """Until when `worker` holds the task after the move (UTC seconds); ``None``: nobody does."""
    hold: float | None = None
    """The same for whatever the move leaves waiting, follow-ups included."""
    result: bytes | None = None
    """``None``: leave what is there."""
    follow_ups: tuple[Task, ...] = ()
    """Tasks that are enqueued in the same commit; one whose id is taken is there already, and left alone."""

    @property
    def state(self) -> State:
        """The state that it leaves the task in."""
        return self.states[-1]

    @property
    def history(self) -> str:
        """What it adds to the task's history, as stored."""
        if len(self.states) == 1:  # most moves are of one step
            return history_line(self.states[0].name, self.at, self.attempt, self.worker)
        return "".join([history_line(state.name, self.at, self.attempt, self.worker) for state in self.states])

    @property
    def ended(self) -> float | None:
        """When it brought the task to rest (UTC seconds); ``None`` if it did not."""
        return self.at if self.states[-1].name in AT_REST else None

    @property
    def frees_locks(self) -> bool:
        """Does it end an attempt whose worker may be gone, so that the locks taken in it are to be freed?"""
        return self.path[0] in _FREES_LOCKS

    def apply(self, task: Task) -> None:
        """Bring a task from before the move to after the move: every field that a store keeps, the state included."""
        task.version += len(self.states)
        task.state = self.states[-1].name
        self._finish(task)

    def enter(self, task: Task, step: int) -> None:
        """Give a task the fields of one step of the path, all but the state.

        `step`: 0 is the first transition. For announcing: the machine moves the state, and handlers see in each step
        the fields of that step. Call it for each step, in order; after the last, the task is as `apply` leaves it.
        """
        task.version += 1
        if step == len(self.path) - 1:
            self._finish(task)
            return
        trigger = self.path[step]
        task.worker, task.lease = self.worker, self.lease
        if trigger == RETRY:  # pays with a retry; an operator's retry forgives interruptions
            task.retries, task.interruptions = self.retries, self.interruptions
        elif trigger == INTERRUPT:
            task.interruptions = self.interruptions

    def _finish(self, task: Task) -> None:
        if task.canceling and self.ended is not None:
            task.canceling = False
        task.attempt, task.retries, task.interruptions = self.attempt, self.retries, self.interruptions
        task.eta, task.lease, task.worker = self.eta, self.lease, self.worker


def _move(task: Task, path: tuple[str, ...], now: float, worker: str, hold: float | None = None) -> Move:
    """The move along `path`, with nothing else changed. Raises `IllegalTransition` if the table does not have it."""
    states = LIFECYCLE.walk(task.state, path)
    lease = hold if states[-1].name in WAITING else None
    return Move(path, states, now, worker, task.attempt, task.retries, task.interruptions, task.eta, lease, hold)


def enqueued(task: Task, now: float, worker: str, hold: float | None = None) -> Move:
    """The birth of a task."""
    return _move(task, (ENQUEUE,), now, worker, hold)


def revoked_when_due(task: Task, own: Revocation | None, now: float) -> bool:
    """Is a waiting task revoked by itself, and still will be when it could run?"""
    return own is not None and own.holds(now if task.eta is None else max(now, task.eta))


def visibility(task: Task, own: Revocation | None, now: float) -> tuple[int | None, float | None]:
    """When a claim shall look at a task that nobody holds: ``(rank, due)``.

    With a rank (higher first, then age) it is to be looked at now. With a due time (UTC seconds) it gets its priority
    as rank then. With neither no claim ever looks at it. `own`: what is revoked of the task itself, if anything.
    """
    if task.state not in WAITING:
        return None, None
    if revoked_when_due(task, own, now):
        return REVOKED_RANK, None
    if task.state == QUEUED:
        return task.priority, None
    # A task that expires before its ETA is dealt with at its expiry, not at its ETA.
    return None, min(moment for moment in (task.eta, task.expires, FOREVER) if moment is not None)


def admit(task: Task, own: Revocation | None, of_function: Revocation | None, now: float) -> str | None:
    """What a claim does to a waiting task now: a trigger, or ``None`` to let it wait on (its ETA is still ahead).

    `own` and `of_function`: what is revoked, if anything. The order of the guards is part of the law.
    """
    if task.expires is not None and task.expires <= now:
        return EXPIRE
    if own is not None and revoked_when_due(task, own, now):
        return REVOKE
    if task.eta is not None and task.eta > now:
        return SCHEDULE if task.state == QUEUED else None
    if of_function is not None and of_function.holds(now):
        return REVOKE
    return START


def claimed(task: Task, trigger: str, worker: str, now: float, lease: float, *, hold: bool = False) -> Move:
    """The move of a claim that `admit` decided on: a start holds the task for `lease` seconds.

    So does `hold`, for one that is only scheduled.
    """
    move = _move(task, (trigger,), now, worker, now + lease if hold else None)
    if trigger == START:
        move.attempt += 1
        move.lease = now + lease
        move.eta = None  # it has come: the next wait, if there is one, sets its own
    return move


def backoff(policy: RetryPolicy, attempt: int, jitter: float = 0.0) -> float:
    """Seconds to wait after the `attempt`-th attempt (1 is the first) failed.

    ``delay * backoff ** (attempt - 1)``, at most `max_delay`, plus ``jitter`` (0 to 1, drawn by the caller) times the
    policy's share of it; the bound holds for the sum.
    """
    delay = policy.delay
    if policy.backoff > 1.0 and delay > 0.0:
        try:
            delay *= policy.backoff ** max(attempt - 1, 0)
        except OverflowError:
            delay = policy.max_delay
    delay = min(delay, policy.max_delay)
    return min(delay + delay * policy.jitter * jitter, policy.max_delay)


def settle(
    task: Task,
    outcome: Outcome,
    now: float,
    *,
    worker: str,
    hold: float | None = None,
    jitter: float = 0.0,
    max_interruptions: int = 10,
    follow_ups: tuple[Task, ...] = (),
) -> Move:
    """The whole path from an attempt's outcome to where the task rests or waits.

    Raises `IllegalTransition` if the task is not executing, or no attempt ends so. `hold`: see `Move`; `jitter`: see
    `backoff`.
    """
    trigger = outcome.trigger
    if task.state != EXECUTING:
        raise IllegalTransition(state=task.state, trigger=trigger, allowed=LIFECYCLE.allowed(task.state))
    if trigger == COMPLETE:
        move = _move(task, (COMPLETE,), now, worker, hold)
    elif trigger == INTERRUPT:
        return recover(task, now, worker=worker, hold=hold, max_interruptions=max_interruptions)
    elif trigger == RETRY or outcome.retry or (outcome.retry is None and task.retries > 0):
        wait = outcome.delay if outcome.delay is not None else backoff(task.retry, task.attempt, jitter)
        eta = outcome.eta if outcome.eta is not None else now + wait
        again = SCHEDULE if eta > now else ENQUEUE
        path = (RETRY, again) if trigger == RETRY else (trigger, RETRY, again)
        move = _move(task, path, now, worker, hold)
        move.eta = eta if again == SCHEDULE else None
        if not (outcome.free or trigger == RETRY):
            move.retries = max(task.retries - 1, 0)
    else:
        move = _move(task, (trigger,), now, worker, hold)
    move.result = outcome.result
    move.follow_ups = follow_ups
    return move


def recover(task: Task, now: float, *, worker: str, hold: float | None = None, max_interruptions: int = 10) -> Move:
    """What becomes of a running task whose worker is gone: back to the queue, or, too often interrupted, to rest.

    Costs no retry. A task that was interrupted more than `max_interruptions` times may be what kills its workers. One
    that was to be called off is: what its worker was asked to do has come about by itself.
    """
    if task.canceling:
        return _move(task, (CANCEL,), now, worker, hold)
    interruptions = task.interruptions + 1
    path = (INTERRUPT,) if interruptions > max_interruptions else (INTERRUPT, RECOVER)
    move = _move(task, path, now, worker, hold)
    move.interruptions = interruptions
    return move


def retry(task: Task, now: float, *, worker: str, hold: float | None = None) -> Move:
    """An operator's second chance for a task at rest: at once, whatever its retries; its interruptions are forgiven.

    Raises `IllegalTransition` unless the task rests in an outcome: what is final stays so, and what still runs or waits
    is its worker's.
    """
    if task.state not in OUTCOMES:
        allowed = tuple(trigger for trigger in LIFECYCLE.allowed(task.state) if trigger != RETRY)
        raise IllegalTransition(state=task.state, trigger=RETRY, allowed=allowed, subject=f"task {task.id}")
    move = _move(task, (RETRY, ENQUEUE), now, worker, hold)
    move.eta, move.interruptions = None, 0
    return move
