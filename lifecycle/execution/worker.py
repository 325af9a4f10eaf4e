"""The step that consumers, immediate mode and tests share: claim → announce → run → settle → announce."""

import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from copy import copy
from typing import Final, TypeVar

from lifecycle.core import policies
from lifecycle.core.policies import WAITING, Outcome
from lifecycle.core.table import EXECUTING, INTERRUPT, SCHEDULE, START
from lifecycle.core.task import Task
from lifecycle.errors import StorageError, TaskCanceled, TaskInterrupted
from lifecycle.execution.engine import Engine
from lifecycle.execution.interruption import THREADS, InterruptBackend
from lifecycle.execution.runner import TaskRunner
from lifecycle.execution.signals import SIGNAL_SCHEDULED
from lifecycle.storage.base import Claim, ClaimRequest, Settlement

__all__ = ["Worker", "drained", "give_up"]

T = TypeVar("T")

log = logging.getLogger("lifecycle.worker")

BATCH: Final = 16
"""How many tasks a worker starts in one transaction, if all are of functions that have proved quick. It buys most of
what a commit costs; a killed worker has so many more to do again."""
QUICK: Final = 0.0005
"""Seconds. A function is quick once its recent runs, handlers included, take less."""
PATIENCE: Final = 0.002
"""Seconds after which a worker that is in the midst of a batch settles what it has done, rather than at the end."""
SLOW_HANDLERS: Final = 0.001
"""Seconds. A worker whose handlers last took longer does not claim its next task before they have run: an idle worker
would have to look on."""


def never() -> bool:
    """No."""
    return False


def give_up(error: StorageError) -> bool:
    """Do not wait for the store to come back."""
    del error
    return False


class Worker:
    """Runs one task at a time, in the thread that calls it."""

    def __init__(
        self,
        engine: Engine,
        name: str,
        wait: Callable[[StorageError], bool] = give_up,
        reach: InterruptBackend = THREADS,
    ) -> None:
        """`name`: as it stands in leases and histories; no other worker of the store has it.

        `wait`: called when an outcome could not be stored; it waits, and says whether to try again. If not, the error
        is raised, and the task is recovered when its lease has lapsed. `reach`: how its bodies are interrupted.
        """
        self.engine, self.name = engine, name
        self.attempts = TaskRunner(engine, reach)
        self.running: Task | None = None
        """What it runs now, for whoever has to put that back."""
        self.since = 0.0
        """When it began with its present task, or claimed what is next, as `Engine.tick` has it."""
        self.ran = 0
        """How many attempts it has made."""
        self._called_off: Task | None = None
        self._wait = wait
        self._interrupted = False
        # Deques, since another thread may take from them (`relieve`): each task is taken by one of the two.
        self._claimed: deque[Claim] = deque()
        self._done: deque[tuple[Settlement, BaseException | None]] = deque()
        self._exchanged = self._asked = 0.0
        self._handlers_took = 0.0
        self._pace: dict[str, float] = {}
        self._quick: set[str] = set()

    def work(self, go_on: Callable[[], bool]) -> None:
        """Run what is due, until nothing is or `go_on` says no.

        Between two tasks it makes one call to the store: it settles the one and claims the next. While all it meets are
        of quick functions, it does so for several at once.
        """
        while True:
            if not self._claimed:
                settles = bool(self._done)
                self._exchange(go_on, None)
                if not self._claimed and settles:  # what it has just announced, and let go, may be due again
                    self._exchange(go_on, None)
                if not self._claimed:
                    return
            self._next(None)
            if self._claimed and self._done and self.engine.tick() - self._exchanged > PATIENCE:
                self._exchange(never, None)

    def run_next(self, now: float | None = None) -> Task | None:
        """Deal with the next due task: the task, or ``None`` if none is due. See `TaskQueue.run_next`."""
        while True:
            self._asked = self.engine.tick()
            claims = self.engine.bare.exchange((), self._claim_request(now, 1))[1]
            if not claims:
                return None
            self._claimed.extend(claims)
            error = self._next(now)
            self._exchange(never, now)
            if isinstance(error, KeyboardInterrupt):
                raise error
            task, move = claims[0]
            if move.path != (SCHEDULE,):  # one that was put off was not due yet
                return task

    # From other threads ----------------------------------------------------------------------------------------------

    def interrupt(self) -> None:
        """Tell it to stop: what it runs is interrupted, what it has claimed is not begun."""
        self._interrupted = True
        self.attempts.guard.interrupt(TaskInterrupted)

    def cancel(self, task_id: str) -> bool:
        """Call off what it runs, if that is this task; whether its body was told, now or before: it is once only."""
        run = self.attempts.guard.run  # first: should another task begin meanwhile, that is left alone
        task = self.running
        if task is None or task.id != task_id:
            return False
        task.canceling = True
        if self._called_off is not task and self.attempts.guard.call_off(TaskCanceled, run):
            self._called_off = task
        return self._called_off is task

    def put_back(self) -> None:
        """Interrupt, on behalf of a worker that does not come to it, what it runs; its own outcome is refused then."""
        self.relieve()
        task = copy(self.running)  # the worker's thread still has hold of its task, and must not see it move
        if task is not None and task.state == EXECUTING:  # else it only tells what was decided
            self.conclude(task, Outcome(INTERRUPT))

    def conclude(self, task: Task, outcome: Outcome, error: BaseException | None = None) -> None:
        """Settle and announce how an attempt of this worker has ended, on its behalf."""
        self._settle([self._outcome(task, outcome, error, None)], never, None)

    def relieve(self) -> None:
        """Take from a worker that is held up what it has done and not settled, and put back what it has not begun."""
        if done := drained(self._done):
            self._settle(done, never, None)
        for task, move in drained(self._claimed):
            if self.engine.announce(self.engine.bind(task), move, self._asked):
                if move.path == (START,):
                    self.conclude(task, Outcome(INTERRUPT))
                else:
                    self.engine.release((task,))

    @property
    def burdened(self) -> bool:
        """Has it done or claimed anything besides what it runs?"""
        return bool(self._done or self._claimed)

    # One exchange with the store, and one task -----------------------------------------------------------------------

    def _claim_request(self, now: float | None, limit: int) -> ClaimRequest:
        engine = self.engine
        moment = engine.clock.now() if now is None else now
        hold = SIGNAL_SCHEDULED in engine.signals.heard
        return ClaimRequest(self.name, moment, engine.lease, hold, limit, self._quick)

    def _exchange(self, go_on: Callable[[], bool], now: float | None) -> None:
        """Settle and announce what is done, and claim what is next, if `go_on`."""
        fused = self._handlers_took < SLOW_HANDLERS or not self._done
        self._settle(drained(self._done), go_on if fused else never, now)
        if not fused:
            self._settle((), go_on, now)
        self._exchanged = self.engine.tick()

    def _settle(
        self, done: Sequence[tuple[Settlement, BaseException | None]], go_on: Callable[[], bool], now: float | None
    ) -> None:
        """Commit outcomes, claim what is next in the same transaction, if `go_on`, and announce what was accepted."""
        engine = self.engine
        settlements = [settlement for settlement, _ in done]
        while True:
            request = self._claim_request(now, BATCH) if go_on() else None
            if not done and request is None:
                return
            asked = engine.tick()
            try:
                took, claims = engine.bare.exchange(settlements, request)
                break
            except StorageError as failure:
                if not done or not self._wait(failure):
                    raise
        if engine.owed:  # the store can be used
            engine.pay()
        started = engine.tick()
        if claims:
            self._asked, self.since = asked, started  # since its last task it may have been idle: it was not stuck
        self._claimed.extend(claims)  # before handlers run: if they are slow, somebody may relieve this worker of them
        for (settlement, error), taken in zip(done, took, strict=True):
            task, move = settlement
            if not taken:
                log.warning("%s: its outcome came too late, another worker has taken it over; it is dropped", task)
                continue
            engine.announce(task, move, asked, error)
            if move.lease is not None:
                engine.release((task,))
        self._handlers_took = engine.tick() - started

    def _next(self, now: float | None) -> BaseException | None:
        """Announce the next claim, and run its task if it was started; returns what the function raised."""
        try:
            task, move = self._claimed.popleft()
        except IndexError:  # relieved
            return None
        engine = self.engine
        engine.bind(task)
        began = self.since = self.engine.tick()
        error = None
        self.running = task
        try:
            if not engine.announce(task, move, self._asked):
                return None
            if move.path != (START,):
                engine.release((task,))
                return None
            outcome, error = (Outcome(INTERRUPT), None) if self._interrupted else self.attempts.run(task)
            self._done.append(self._outcome(task, outcome, error, now))
            self.ran += 1
        finally:
            self.running = None
        self._learn(task.name, self.engine.tick() - began)
        return error

    def _outcome(
        self, task: Task, outcome: Outcome, error: BaseException | None, now: float | None
    ) -> tuple[Settlement, BaseException | None]:
        """What is to be committed of an outcome."""
        engine = self.engine
        moment = engine.clock.now() if now is None else now
        move = policies.settle(
            task,
            outcome,
            moment,
            worker=self.name,
            jitter=random.random() if task.retry.jitter else 0.0,  # noqa: S311 -- spreads retries, hides nothing
            max_interruptions=engine.max_interruptions,
        )
        if move.states[-1].name in WAITING:  # the next attempt must not announce itself before this one has
            move.lease = move.hold = engine.hold(task.state, move.path, moment)
        return Settlement(task, move), error

    def _learn(self, function: str, took: float) -> None:
        """Is a function quick? One slow run says no; it takes some 70 quick ones to say yes (again)."""
        slowest = self._pace.get(function, 1.0)
        self._pace[function] = pace = took if took > slowest else slowest * 0.9 + took * 0.1
        if pace < QUICK:
            self._quick.add(function)
        else:
            self._quick.discard(function)


def drained(entries: deque[T], limit: int | None = None) -> list[T]:
    """Take all that is there, or no more than `limit`; safe while another thread does the same."""
    taken: list[T] = []
    while limit is None or len(taken) < limit:
        try:
            taken.append(entries.popleft())
        except IndexError:
            break
    return taken
