"""Policies: pure functions that map a task and the time to the transitions that follow.

`visibility` decides when a claim considers a task, `admit` the transition of a claimed task, `settle` the transitions
after an outcome, `recover` the transitions of an attempt whose worker is gone, and `retry` those of an operator's
retry. The functions return data (`Move`), which a store commits or refuses as a whole.

The functions use no clock, no randomness and no storage: `now` and `jitter` are arguments.
"""

from collections.abc import Iterable
from typing import Final

import attrs

from lifecycle.core.machine import IllegalTransition
from lifecycle.core.table import (
    CANCEL,
    COMPLETE,
    DEFER,
    ENQUEUE,
    EXECUTING,
    EXPIRE,
    INTERRUPT,
    LIFECYCLE,
    PENDING,
    QUEUED,
    RECOVER,
    RETRY,
    REVOKE,
    SCHEDULE,
    SCHEDULED,
    SKIP,
    START,
    Kind,
    State,
)
from lifecycle.core.task import HISTORY_STEP, RetryPolicy, Task, history_line, is_history_cut
from lifecycle.errors import ConfigurationError

__all__ = [
    "MAX_INTERRUPTIONS", "REVOKED_RANK", "Move", "Outcome", "Revocation", "admit", "backoff", "claimed", "enqueued",
    "expiry", "interruption_pause", "recover", "resting_states", "retry", "revokes", "settle", "visibility",
]  # fmt: skip

WAITING: Final = frozenset(state.name for state in LIFECYCLE.of_kind(Kind.WAITING))
OUTCOMES: Final = frozenset(state.name for state in LIFECYCLE.of_kind(Kind.OUTCOME))
AT_REST: Final = frozenset(state.name for state in LIFECYCLE.of_kind(Kind.OUTCOME, Kind.FINAL))
"""Resting states: a task may stay in these for good."""

# The most frequent paths. Their moves are written out in `enqueued`, `claimed` and `settle`: `_move` costs more.
_ENQUEUE: Final = (ENQUEUE,)
_DEFER: Final = (DEFER,)
_START: Final = (START,)
_ENQUEUE_AND_START: Final = (ENQUEUE, START)
_COMPLETE: Final = (COMPLETE,)
_COMPLETED: Final = LIFECYCLE.walk(EXECUTING, _COMPLETE)
_BIRTHS: Final = frozenset((trigger,) for trigger in LIFECYCLE.allowed(None))
_FREES_LOCKS: Final = frozenset((INTERRUPT, CANCEL))

FOREVER: Final = float("inf")
MAX_INTERRUPTIONS: Final = 3
"""Interruptions after which a task is requeued, unless its queue or its function says otherwise."""
REVOKED_RANK: Final = 2**62
"""Rank of a task with a revocation of its own: claimed before all tasks that will run."""


def resting_states(names: Iterable[str]) -> list[str]:
    """Return names of resting states, each once. Raises `ConfigurationError`, with the list, for another name."""
    unique = list(dict.fromkeys(names))
    for name in unique:
        if name not in AT_REST:
            resting = ", ".join(LIFECYCLE.of_kind(Kind.FINAL, Kind.OUTCOME))
            raise ConfigurationError(f"no task is at rest in the state {name!r}: there are {resting}")
    return unique


@attrs.frozen
class Revocation:
    """Order not to run a task, or not to run any task of a function."""

    until: float | None = None
    """End of the revocation (UTC seconds); ``None``: for good."""
    once: bool = False
    """True if the revocation ends with the first task that it stops."""

    def holds(self, at: float) -> bool:
        """Return whether the revocation stops a task that would run at this moment."""
        return self.until is None or at < self.until


@attrs.define  # not frozen: that would cost three times as much to make
class Outcome:
    """End of an attempt, in terms of the table."""

    trigger: str
    """First trigger: `complete`, `fail`, `time_out`, `interrupt`, `retry` (raised by the task), …"""
    result: bytes | None = None
    """Stored value or error, for the result handle. ``None`` keeps the result of an earlier attempt."""
    retry: bool | None = None
    """``None``: retry if a retry is left. ``True``: retry in any case. ``False``: do not retry."""
    free: bool = False
    """True if a retry, or an interruption, does not count: the number of retries left, or of interruptions, stays."""
    delay: float | None = None
    """Seconds until the retry; ``None``: the task's retry policy decides."""
    eta: float | None = None
    """Moment of the retry (UTC seconds); takes precedence over `delay`."""
    begun: bool = True
    """False if the function was not called: then the start does not count as an attempt."""


@attrs.define
class Move:
    """A path of transitions that one task takes in one commit, and the changes of its fields."""

    path: tuple[str, ...]
    """The triggers, in order."""
    states: tuple[State, ...]
    """The states they enter, in order."""
    at: float
    """The moment (UTC seconds)."""
    worker: str
    """The worker, or the process, that makes the move."""
    version: int
    """The task's fields after the move; so are the fields that follow."""
    attempt: int
    retries: int
    interruptions: int
    eta: float | None
    lease: float | None
    """Until when `worker` holds the task after the move (UTC seconds); ``None``: nobody does."""
    ended: float | None
    """When the move brought the task to rest (UTC seconds); ``None`` if it did not."""
    frees_locks: bool
    """True if the move ends an attempt whose worker may be gone: the locks taken in it are freed."""
    hold_until: float | None = None
    """The same as `lease` for every task that the move leaves waiting, follow-ups included."""
    result: bytes | None = None
    """``None``: leave what is there."""
    follow_ups: tuple[Task, ...] = ()
    """Tasks that are enqueued in the same commit; one whose id is taken is there already, and left alone."""

    @property
    def state(self) -> State:
        """The state after the move."""
        return self.states[-1]

    @property
    def history(self) -> str:
        """The lines that the move adds to the task's history, as stored."""
        if len(self.states) == 1:  # most moves are of one step
            return history_line(self.states[0].name, self.at, self.attempt, self.worker)
        before = self.attempt - (self.path[-1] == START)  # the start, which comes last, counts the attempt
        lines = [history_line(state.name, self.at, before, self.worker) for state in self.states[:-1]]
        return "".join(lines) + history_line(self.states[-1].name, self.at, self.attempt, self.worker)

    @property
    def cuts_history(self) -> bool:
        """True if the store has to leave out the middle of the history after the move: see `cut_history`."""
        return self.version > HISTORY_STEP and is_history_cut(self.version - len(self.states), self.version)

    def apply(self, task: Task) -> None:
        """Bring a task from before the move to after the move: every field that a store keeps, the state included."""
        task.state, task.version = self.states[-1].name, self.version
        if task.canceling and self.ended is not None:
            task.canceling = False
        task.attempt, task.retries, task.interruptions = self.attempt, self.retries, self.interruptions
        task.eta, task.lease, task.worker = self.eta, self.lease, self.worker
        if self.path in _BIRTHS:
            task.enqueued_at = self.at

    def enter(self, task: Task, step: int) -> None:
        """Give a task the fields of one step on the way, all but the state; for the last step there is `apply`.

        `step`: 0 is the first transition. For announcing: the machine moves the state, and handlers see in each step
        the fields of that step.
        """
        task.version += 1
        task.worker, task.lease = self.worker, self.lease
        if self.path[step] == RETRY:  # pays with a retry; an operator's retry forgives interruptions
            task.retries, task.interruptions = self.retries, self.interruptions
        elif self.path[step] == INTERRUPT:
            task.interruptions, task.attempt = self.interruptions, self.attempt


def _move(task: Task, path: tuple[str, ...], now: float, worker: str, hold_until: float | None = None) -> Move:
    """Return the move along `path`, with nothing else changed.

    Raises `IllegalTransition` if the table does not have the path.
    """
    states = LIFECYCLE.walk(task.state, path)
    last = states[-1].name
    return Move(
        path,
        states,
        now,
        worker,
        task.version + len(states),
        task.attempt,
        task.retries,
        task.interruptions,
        task.eta,
        hold_until if last in WAITING else None,
        now if last in AT_REST else None,
        path[0] in _FREES_LOCKS,
        hold_until,
    )


def enqueued(task: Task, now: float, worker: str, hold_until: float | None = None) -> Move:
    """Return the move that creates a task; a task that waits for others is born `pending`.

    Raises `IllegalTransition` if the task has a state: it was created before.
    """
    path = _ENQUEUE if task.step is None or not task.step.awaits else _DEFER
    if task.state is not None:
        raise IllegalTransition(state=task.state, trigger=path[0], allowed=LIFECYCLE.allowed(task.state))
    states = LIFECYCLE.walk(None, path)
    return Move(
        path, states, now, worker, task.version + 1, task.attempt, task.retries, task.interruptions, task.eta,
        hold_until, None, False, hold_until,
    )  # fmt: skip


def revoked_when_due(task: Task, own: Revocation | None, now: float) -> bool:
    """Return whether a waiting task's own revocation (`own`) will still hold when the task is due.

    Nobody knows when a task is due that waits for others: only a revocation for good counts there.
    """
    if own is None:
        return False
    if _is_undecided(task):
        return own.until is None
    return own.holds(now if task.eta is None else max(now, task.eta))


def _is_undecided(task: Task) -> bool:
    return task.step is not None and task.step.verdict is None and task.state == PENDING


def visibility(task: Task, own: Revocation | None, now: float) -> tuple[int | None, float | None]:
    """Return when a claim considers a task that no worker holds: ``(rank, due)``.

    With a rank, claims consider the task now: higher ranks first, then by age. With a due time (UTC seconds), the task
    gets its priority as rank at that time. With neither, no claim considers the task. `own`: revocation of the task
    itself, if any.
    """
    if task.state not in WAITING:
        return None, None
    if own is not None and revoked_when_due(task, own, now):
        return REVOKED_RANK, None
    if task.state == QUEUED:
        return task.priority, None
    if task.step is not None and task.step.verdict is not None and task.state == PENDING:
        return (REVOKED_RANK if task.step.verdict.trigger == SKIP else task.priority), None
    # A task that waits for others has no due time of its own, except for its expiry. A scheduled task
    # that expires before its ETA is due at its expiry.
    eta = None if task.state == PENDING else task.eta
    return None, min(moment for moment in (eta, expiry(task), FOREVER) if moment is not None)


def expiry(task: Task) -> float | None:
    """Return the moment from which a waiting task is not started any more; ``None``: there is none.

    With `RetryPolicy.expires_after` a later attempt expires that long after its ETA, whatever the first expiry was. A
    task that waits for others, without an expiry of its own, expires that long after the last of these has ended, or
    after its ETA if that is later.
    """
    seconds, waits = task.retry.expires_after, task.step is not None and task.step.awaits > 0
    if seconds is None or (task.attempt == 0 and task.expires is not None):
        return task.expires
    if task.attempt > 0:
        return None if task.eta is None or not (waits or task.expires is not None) else task.eta + seconds
    if not waits or task.step is None or task.step.verdict is None:
        return None
    return max(task.step.verdict.at, task.eta or 0.0) + seconds


def admit(task: Task, own: Revocation | None, of_function: Revocation | None, now: float) -> str | None:
    """Return the trigger that a claim applies to a waiting task, or ``None`` if the task's ETA is still ahead.

    `own` and `of_function`: revocations of the task and of its function, if any. The order of the guards is part of the
    law.
    """
    if (task.expires is not None or task.step is not None) and (expires := expiry(task)) is not None and expires <= now:
        return EXPIRE
    if own is not None and revoked_when_due(task, own, now):
        return REVOKE
    if (
        task.step is not None
        and task.state == PENDING
        and (task.step.verdict is None or task.step.verdict.trigger == SKIP)
    ):
        return None if task.step.verdict is None else SKIP
    if task.eta is not None and task.eta > now:
        return None if task.state == SCHEDULED else SCHEDULE
    if of_function is not None and of_function.holds(now):
        return REVOKE
    return START


def revokes(task: Task, own: Revocation | None, of_function: Revocation | None, now: float) -> bool:
    """Return whether a revocation holds for a task: a waiting task would be revoked at its turn, at the latest.

    The turn of a waiting task is now, or at its ETA. A task that runs or rests has a turn if it is retried. A task that
    waits for others has a turn that nobody knows.
    """
    if task.state not in WAITING or _is_undecided(task):
        return any(revocation is not None and revocation.holds(now) for revocation in (own, of_function))
    turn = now if task.eta is None else max(now, task.eta)
    return REVOKE in (admit(task, own, None, now), admit(task, None, of_function, turn))


def claimed(task: Task, trigger: str, worker: str, now: float, lease: float, *, hold_scheduled: bool = False) -> Move:
    """Return the move of a claim with the trigger that `admit` returned.

    A pending task is enqueued and started in one move. A start holds the task for `lease` seconds; with
    `hold_scheduled`, so does a move that only schedules the task.
    """
    if trigger == START:  # the ETA has come; a later wait sets a new one
        if task.step is not None and task.state == PENDING:
            move = _move(task, _ENQUEUE_AND_START, now, worker)
            move.attempt, move.eta, move.lease = task.attempt + 1, None, now + lease
            return move
        states = LIFECYCLE.walk(task.state, _START)
        return Move(
            _START, states, now, worker, task.version + 1, task.attempt + 1, task.retries, task.interruptions, None,
            now + lease, None, False,
        )  # fmt: skip
    return _move(task, (trigger,), now, worker, now + lease if hold_scheduled else None)


def backoff(policy: RetryPolicy, attempt: int, jitter: float = 0.0) -> float:
    """Return the seconds to wait after the failure of the `attempt`-th attempt (1 is the first).

    The wait is ``delay * backoff ** (attempt - 1)``, plus `jitter` (0 to 1, drawn by the caller) times the policy's
    share of the wait. `max_delay` limits the sum.
    """
    delay = policy.delay
    if policy.backoff > 1.0 and delay > 0.0:
        try:
            delay *= policy.backoff ** max(attempt - 1, 0)
        except OverflowError:
            delay = policy.max_delay
    delay = min(delay, policy.max_delay)
    return min(delay + delay * policy.jitter * jitter, policy.max_delay)


def _due_now(task: Task, now: float) -> float | None:
    """Return the ETA of a later attempt that is due at once: the moment from which its expiry counts, if it does."""
    return None if task.retry.expires_after is None else now


def settle(
    task: Task,
    outcome: Outcome,
    now: float,
    *,
    worker: str,
    hold_until: float | None = None,
    jitter: float = 0.0,
    max_interruptions: int = MAX_INTERRUPTIONS,
    follow_ups: tuple[Task, ...] = (),
) -> Move:
    """Return the whole path from the outcome of an attempt to a resting or waiting state.

    Raises `IllegalTransition` if the task is not executing, or if the outcome's trigger ends no attempt.
    `hold_until`: see `Move`; `jitter`: see `backoff`; `max_interruptions`: see `recover`. The result of an interruption
    is stored only if the task comes to rest: a caller that waits hears nothing of an attempt that is repeated.
    """
    trigger = outcome.trigger
    if task.state != EXECUTING:
        raise IllegalTransition(state=task.state, trigger=trigger, allowed=LIFECYCLE.allowed(task.state))
    if trigger == COMPLETE:
        return Move(
            _COMPLETE, _COMPLETED, now, worker, task.version + 1, task.attempt, task.retries, task.interruptions,
            task.eta, None, now, False, hold_until, outcome.result, follow_ups,
        )  # fmt: skip
    if trigger == INTERRUPT:
        move = recover(
            task, now, worker=worker, hold_until=hold_until, max_interruptions=max_interruptions, free=outcome.free
        )
        move.attempt -= not outcome.begun
        move.result = outcome.result if move.path == (INTERRUPT,) else None
        return move
    if trigger == RETRY or outcome.retry or (outcome.retry is None and task.retries > 0):
        wait = outcome.delay if outcome.delay is not None else backoff(task.retry, task.attempt, jitter)
        eta = outcome.eta if outcome.eta is not None else now + wait
        again = SCHEDULE if eta > now else ENQUEUE
        path = (RETRY, again) if trigger == RETRY else (trigger, RETRY, again)
        move = _move(task, path, now, worker, hold_until)
        move.eta = eta if again == SCHEDULE else _due_now(task, now)
        if not (outcome.free or trigger == RETRY):
            move.retries = max(task.retries - 1, 0)
    else:
        move = _move(task, (trigger,), now, worker, hold_until)
    move.result = outcome.result
    move.follow_ups = follow_ups
    return move


def interruption_pause(interruptions: int) -> float:
    """Return the seconds that a task waits after its last of so many interruptions: none, 2, 4, 8 … 64."""
    return 0.0 if interruptions < 2 else 2.0 ** min(interruptions - 1, 6)  # noqa: PLR2004 -- the second one


def recover(
    task: Task,
    now: float,
    *,
    worker: str,
    hold_until: float | None = None,
    max_interruptions: int = MAX_INTERRUPTIONS,
    free: bool = False,
) -> Move:
    """Return the move of a running task whose worker is gone: requeued, or `interrupted` if interrupted too often.

    The number of retries left stays the same. A task that was interrupted more than `max_interruptions` times may be
    the reason why its workers die. From the second interruption on, the task is requeued with an ETA: see
    `interruption_pause`. `free`: the interruption does not count, since the worker was stopped, or has not called the
    function. If cancellation was requested, the task ends `canceled`: its attempt has stopped anyway.
    """
    if task.canceling:
        return _move(task, (CANCEL,), now, worker, hold_until)
    if free:
        move = _move(task, (INTERRUPT, RECOVER), now, worker, hold_until)
        move.eta = task.eta if task.retry.expires_after is None else now
        return move
    interruptions = task.interruptions + 1
    path = (INTERRUPT,) if interruptions > max_interruptions else (INTERRUPT, RECOVER)
    move = _move(task, path, now, worker, hold_until)
    move.interruptions = interruptions
    if move.ended is None and (pause := interruption_pause(interruptions)):
        move.eta = now + pause
    elif task.retry.expires_after is not None:
        move.eta = now
    return move


def retry(task: Task, now: float, *, worker: str, hold_until: float | None = None) -> Move:
    """Return the move of an operator's retry: at once, whatever retries are left; interruptions are reset to 0.

    Raises `IllegalTransition` unless the task's state is an outcome: a final state is never left, and a task that waits
    or runs belongs to the workers.
    """
    if task.state not in OUTCOMES:
        allowed = tuple(trigger for trigger in LIFECYCLE.allowed(task.state) if trigger != RETRY)
        raise IllegalTransition(state=task.state, trigger=RETRY, allowed=allowed, subject=f"task {task.id}")
    move = _move(task, (RETRY, ENQUEUE), now, worker, hold_until)
    move.eta, move.interruptions = _due_now(task, now), 0
    return move
