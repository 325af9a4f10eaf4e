"""The step that consumers, immediate mode and tests share: claim → announce → run → settle → announce."""

import logging
import random
from collections.abc import Callable
from copy import copy
from typing import Final

from lifecycle import policies
from lifecycle.attempt import Attempts
from lifecycle.clock import monotonic
from lifecycle.engine import Engine
from lifecycle.errors import StorageError, TaskInterrupted
from lifecycle.policies import WAITING, Move, Outcome
from lifecycle.signals import SIGNAL_SCHEDULED
from lifecycle.storage.base import Claim, Claimant, Settlement
from lifecycle.table import INTERRUPT, SCHEDULE, START
from lifecycle.task import Task

__all__ = ["Worker"]

log = logging.getLogger("lifecycle.worker")

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

    def __init__(self, engine: Engine, name: str, wait: Callable[[StorageError], bool] = give_up) -> None:
        """`name`: as it stands in leases and histories; no other worker of the store has it.

        `wait`: called when an outcome could not be stored; it waits, and says whether to try again. If not, the error
        is raised, and the task is recovered when its lease has lapsed.
        """
        self.engine, self.name = engine, name
        self.attempts = Attempts(engine)
        self.running: Task | None = None
        """What it runs now, for whoever has to put that back."""
        self._wait = wait
        self._interrupted = False
        self._handlers_took = 0.0

    def work(self, go_on: Callable[[], bool]) -> None:
        """Run what is due, until nothing is or `go_on` says no.

        Between two tasks it makes one call to the store: it settles the one and claims the next.
        """
        claim = self._claim()
        while claim is not None:
            claim = self._take(claim, go_on, None)
            if claim is None and go_on():
                claim = self._claim()

    def run_next(self, now: float | None = None) -> Task | None:
        """Deal with the next due task: the task, or ``None`` if none is due. See `TaskQueue.run_next`."""
        while (claim := self._claim(now)) is not None:
            self._take(claim, never, now)
            if claim.move.path != (SCHEDULE,):  # one that was put off was not due yet
                return claim.task
        return None

    def interrupt(self) -> None:
        """Tell it from another thread to stop: what it runs is interrupted, what it has just claimed is not begun."""
        self._interrupted = True
        self.attempts.guard.throw(TaskInterrupted)

    def put_back(self) -> None:
        """Interrupt, on behalf of a worker that does not come to it, what it runs; its own outcome is refused then."""
        task = self.running
        if task is not None:
            # A copy: the worker's thread still has hold of its task, and must not see it move.
            self._settle(copy(task), Outcome(INTERRUPT), None, never, None)

    # One task ------------------------------------------------------------------------------------------------------

    def _claim(self, now: float | None = None) -> Claim | None:
        _, claims = self.engine.storage.exchange((), self._claimant(now))
        return claims[0] if claims else None

    def _claimant(self, now: float | None) -> Claimant:
        engine = self.engine
        moment = engine.clock.now() if now is None else now
        return Claimant(self.name, moment, engine.lease, SIGNAL_SCHEDULED in engine.signals.heard)

    def _take(self, claim: Claim, go_on: Callable[[], bool], now: float | None) -> Claim | None:
        """Announce a claim, run and settle its task if it was started; what was claimed along with that, if any."""
        task, move = claim
        engine = self.engine
        engine.bind(task)
        if not engine.announce(task, move.path):
            return None
        if move.path != (START,):
            engine.release((task,))
            return None
        self.running = task
        try:
            outcome, error = (Outcome(INTERRUPT), None) if self._interrupted else self.attempts.run(task)
            following = self._settle(task, outcome, error, go_on, now)
        finally:
            self.running = None
        if isinstance(error, KeyboardInterrupt):
            raise error
        return following

    def _settle(
        self, task: Task, outcome: Outcome, error: BaseException | None, go_on: Callable[[], bool], now: float | None
    ) -> Claim | None:
        """Commit an outcome, and announce it if it was accepted; what was claimed along with it, if anything."""
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
        if move.state in WAITING:  # the next attempt must not announce itself before this one has
            move.lease = move.hold = engine.hold(task.state, move.path, moment)
        took, following = self._commit(task, move, go_on, now)
        if not took:
            log.warning("%s: its outcome came too late, another worker has taken it over; it is dropped", task)
            return following
        started = monotonic()
        engine.announce(task, move.path, error)
        engine.release((task,))
        self._handlers_took = monotonic() - started
        return following

    def _commit(
        self, task: Task, move: Move, go_on: Callable[[], bool], now: float | None
    ) -> tuple[bool, Claim | None]:
        while True:
            claimant = self._claimant(now) if self._handlers_took < SLOW_HANDLERS and go_on() else None
            try:
                (took,), claims = self.engine.storage.exchange((Settlement(task, move),), claimant)
            except StorageError as failure:
                if not self._wait(failure):
                    raise
            else:
                return took, claims[0] if claims else None
