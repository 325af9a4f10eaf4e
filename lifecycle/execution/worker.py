"""A worker: claim → announce → run → settle → announce. Consumers, immediate mode, tests and simulations share it."""

import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from copy import copy
from typing import Final, TypeVar

import attrs

from lifecycle.core import policies
from lifecycle.core.policies import WAITING, Move, Outcome
from lifecycle.core.table import COMPLETE, EXECUTING, INTERRUPT, SCHEDULE, START
from lifecycle.core.task import Task
from lifecycle.errors import StorageError, StorageRefused
from lifecycle.execution.attempt import unstorable
from lifecycle.execution.attempt_log import log_dropped, log_end, log_of_tasks
from lifecycle.execution.earlier_attempts import EarlierAttempts
from lifecycle.execution.engine import Engine
from lifecycle.execution.inputs import read_inputs
from lifecycle.execution.pace import Pace
from lifecycle.execution.runner import Runner, TaskRunner
from lifecycle.execution.signals import SIGNAL_SCHEDULED
from lifecycle.storage.base import Channel, Claim, ClaimRequest, Settlement

__all__ = ["Worker", "give_up", "pop_all"]

T = TypeVar("T")

_Done = tuple[Settlement, BaseException | None, float | None]
"""Settlement of an attempt, the exception that its function raised, and its duration in seconds, if known."""

log = logging.getLogger("lifecycle.worker")

BATCH_LIMIT: Final = 16
"""How many tasks an inline worker starts in one transaction, if all are of functions that have proved quick. It saves
most of the cost of a commit; a killed worker has so many more tasks to run again."""
CLAIM_LIMIT: Final = 64
"""How many tasks a worker with several slots claims at a time, at the most: other workers may be idle."""
SETTLE_AFTER_SECONDS: Final = 0.002
"""A worker within a batch settles after so long what it has run, rather than at the batch's end."""
SLOW_HANDLERS_SECONDS: Final = 0.001
"""A worker whose handlers last took longer claims its next task after they have run, for idle workers' sake."""


_NOT_BEGUN: Final = Outcome(INTERRUPT, free=True, begun=False)
"""The outcome of a task that goes back as it was, since its function was not called."""


def never() -> bool:
    """Return False."""
    return False


def give_up(error: StorageError) -> bool:
    """Do not wait for the store to come back."""
    del error
    return False


class Worker:
    """Claims tasks for its runner, settles their outcomes, and announces both.

    One thread calls `work` (or `run_next`); the methods under *From other threads* may be called by any thread.
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        wait: Callable[[StorageError], bool] = give_up,
        runner: Runner | None = None,
    ) -> None:
        """`name`: as it stands in leases and histories; no other worker of the store has it.

        `wait`: called when an outcome could not be stored; waits, and returns whether to try again. If not, the error
        is raised, and the task is recovered when its lease has lapsed. `runner`: default is a `TaskRunner`.
        """
        self.engine, self.name = engine, name
        self.runner: Runner = TaskRunner(engine) if runner is None else runner
        self.attempts = 0
        """How many attempts it has made."""
        self.last_begun = 0.0
        """The monotonic time when it began with its last task, or made its last claim."""
        self._wait = wait
        self.unknown = engine.unknown
        """The functions that the worker does not know: its claims pass over their tasks."""
        self._slots = self.runner.slots
        self._running: dict[str, tuple[float, Task]] = {}
        """Task id → since when the task is in hand (monotonic), and the task; the oldest first."""
        self._canceled: set[str] = set()
        """The ids of running tasks whose function was interrupted for it: once only."""
        self._mutex = threading.Lock()
        """Held while an attempt ends: other threads see the attempt as running or as done, never as neither."""
        self._interrupted = False
        # Deques, since another thread may take from them (`hand_back_claims`): each entry is taken by one of the two.
        self._claimed: deque[Claim] = deque()
        self._done: deque[_Done] = deque()
        self._earlier = EarlierAttempts(engine)
        self._now: float | None = None
        self._ended = threading.Event()
        self._watching = False
        self._requested_at = self._exchanged_at = self._ended_at = 0.0
        self._handlers_took = 0.0
        self._pace = Pace()

    def work(self, may_claim: Callable[[], bool]) -> None:
        """Run due tasks until no more can begin: none is due, no slot is free, or `may_claim` says no.

        Between two tasks, one call of the store settles the one and claims the next. While all tasks are of quick
        functions, one call does so for several.
        """
        while self._turn(may_claim):
            pass

    def run_next(self, now: float | None = None) -> Task | None:
        """Deal with the next due task: return it, or ``None`` if none is due. See `TaskQueue.run_next`."""
        self._now = now
        while True:
            self._requested_at = self.engine.monotonic()
            claims = self.engine.storage.exchange((), self._claim_request(limit=1))[1]
            if not claims:
                return None
            task, move = claims[0]
            is_unknown = move.path[-1] == START and task.name not in self.engine.functions
            self.run_claim(claims[0])
            # A task that was scheduled was not due yet, and one of an unknown function is for another process.
            if move.path != (SCHEDULE,) and not is_unknown:
                return task

    def run_claim(self, claim: Claim, now: float | None = None) -> None:
        """Announce a claim of this worker, run the task if the claim has started the task, and settle the outcome.

        `now`: in place of the clock's time (UTC seconds). A `KeyboardInterrupt` in the function is raised again.
        """
        if now is not None:
            self._now = now
        self._claimed.append(claim)
        self._begin_next()
        error = self._done[-1][1] if self._done else None
        self._exchange(never)
        try:
            if isinstance(error, KeyboardInterrupt):
                raise error
        finally:
            del error  # else its traceback refers to this frame, and this frame to the error

    def wait(self, generation: int | None, timeout: float) -> None:
        """Wait until an attempt ends, or until the store has changed since `generation`; or `timeout` seconds.

        `generation`: of `Channel.WORK`; ``None``, or without a free slot: wait for attempts only.
        """
        if generation is None or self._free_slots() == 0:
            self._ended.wait(timeout)
        else:
            self._watching = True
            if not self._done:  # each attempt that ends from now on wakes the store's waiters
                self.engine.storage.wait(Channel.WORK, generation, timeout)
            self._watching = False
        self._ended.clear()

    # From other threads ----------------------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """True while no attempt runs and every outcome is settled."""
        with self._mutex:
            return not (self._running or self._done or self._claimed)

    @property
    def has_backlog(self) -> bool:
        """True while the worker has outcomes to settle, or claims that have not begun."""
        return bool(self._done or self._claimed)

    @property
    def running(self) -> list[tuple[float, Task]]:
        """The tasks in hand, the oldest first, each with the monotonic time since when."""
        return list(self._running.values())

    def interrupt(self) -> None:
        """Interrupt running functions; tasks that are claimed do not begin."""
        self._interrupted = self._earlier.interrupted = True
        self.runner.interrupt()

    def cancel(self, task_id: str) -> bool:
        """Cancel a task if it runs here; return whether its function was interrupted, now or before: once only."""
        _, task = self._running.get(task_id, (0.0, None))
        if task is None:
            return False
        task.canceling = True
        if task_id not in self._canceled and self.runner.cancel(task_id):
            self._canceled.add(task_id)
        return task_id in self._canceled

    def requeue_running(self) -> None:
        """Interrupt running tasks on behalf of a worker that does not stop them; its own outcomes are refused then."""
        with self._mutex:
            running = [task for _, task in self._running.values()]
        for task in running:  # given up: another attempt may run beside the function
            self.engine.running.pop(task.id, None)
        self.hand_back_claims()  # settles attempts that have ended meanwhile
        for task in map(copy, running):  # the worker's thread still uses its task, and must not see it move
            if task.state == EXECUTING:  # else the worker is only announcing a move
                self.settle_for(task, Outcome(INTERRUPT, free=True))

    def settle_for(self, task: Task, outcome: Outcome, error: BaseException | None = None) -> Move:
        """Settle and announce an attempt's outcome on behalf of this worker; return the move."""
        settlement = self._settlement(task, outcome)
        self._settle([(settlement, error, None)], never)
        return settlement.move

    def hand_back_claims(self) -> None:
        """Settle the outcomes of a worker that is stuck, and requeue the tasks that it has claimed and not begun."""
        if done := pop_all(self._done):
            self._settle(done, never)
        for task, move in pop_all(self._claimed) + pop_all(self._earlier.postponed):
            if self._announce_claim(task, move):
                self.settle_for(task, _NOT_BEGUN)

    # One exchange with the store, and one task -----------------------------------------------------------------------

    def _turn(self, may_claim: Callable[[], bool]) -> bool:
        """Settle, claim, and begin the claims; return whether another turn may find more."""
        if self._earlier.postponed:
            self._earlier.resume(self._claimed)
        released = self._exchange(may_claim)
        begun = bool(self._claimed)
        while self._claimed:
            self._begin_next()
            if self._claimed and self._done and self.engine.monotonic() - self._exchanged_at > SETTLE_AFTER_SECONDS:
                self._exchange(never)
        return begun or released  # a task that was just released may be due

    def _free_slots(self) -> int:
        if self._slots is None:
            return BATCH_LIMIT
        return self._slots - len(self._running) - len(self._earlier.postponed)

    def _claim_request(self, limit: int = CLAIM_LIMIT) -> ClaimRequest:
        engine = self.engine
        now = engine.clock.now() if self._now is None else self._now
        hold = SIGNAL_SCHEDULED in engine.signals.connected
        batchable = self._pace.quick if self._slots is None else None
        limit = min(self._free_slots(), limit)
        return ClaimRequest(self.name, now, engine.lease, hold, limit, batchable, self.unknown.skip_names)

    def _exchange(self, may_claim: Callable[[], bool]) -> bool:
        """Settle and announce outcomes, and claim tasks; return whether a task was released after the claim."""
        fused = self._handlers_took < SLOW_HANDLERS_SECONDS or not self._done
        released = self._settle(pop_all(self._done) if self._done else (), may_claim if fused else never)
        if not fused:
            released = self._settle((), may_claim)
        self._exchanged_at = self.engine.monotonic()
        return released

    def _settle(self, done: Sequence[_Done], may_claim: Callable[[], bool]) -> bool:
        """Commit outcomes and claim tasks in one transaction, announce the outcomes that were accepted.

        Returns whether a task was released after its announcement: the claim could not see it.
        """
        engine = self.engine
        try:
            exchanged = self._commit(done, may_claim)
        except StorageRefused as refusal:
            if not done:
                raise
            return self._settle_refused(done, refusal)
        if exchanged is None:
            return False
        requested_at, took, claims = exchanged
        if engine.deferred:  # the store can be used
            engine.flush_deferred()
        started = engine.monotonic()
        if claims:
            self._requested_at, self.last_begun = requested_at, started  # a worker that was idle was not stuck
        self._claimed.extend(claims)  # before handlers run: if they are slow, another thread may hand the claims back
        released, informative = False, bool(done) and log_of_tasks.isEnabledFor(logging.INFO)
        for (settlement, error, seconds), taken in zip(done, took, strict=True):
            task, move = settlement
            if not taken:
                log_dropped(task, move, engine.storage)
                continue
            if informative or move.path != (COMPLETE,):
                log_end(task, move, error, seconds)
            engine.announce(task, move, requested_at, error)
            if move.lease is not None:
                engine.release((task,))
                released = True
        self._handlers_took = engine.monotonic() - started
        return released

    def _settle_refused(self, done: Sequence[_Done], refusal: StorageRefused) -> bool:
        """Settle, one by one, outcomes that the store has refused together. An outcome refused alone is a failure."""
        if len(done) > 1:
            released = [self._settle([one], never) for one in done]
            return any(released)
        ((settlement, _, seconds),) = done
        task = settlement.task
        error = StorageRefused(f"the outcome of {task.name} was refused by the store: {refusal}")
        return self._settle([(self._settlement(task, unstorable(task, error)), error, seconds)], never)

    def _commit(
        self, done: Sequence[_Done], may_claim: Callable[[], bool]
    ) -> tuple[float, list[bool], list[Claim]] | None:
        """Exchange with the store, again and again while outcomes cannot be stored and `wait` says so.

        Returns the monotonic time before the exchange, which settlements took, and the claims; ``None`` if there is
        nothing to settle and nothing to claim. Raises `StorageRefused` if the store will never take the outcomes.
        """
        settlements = [settlement for settlement, _, _ in done] if done else []
        while True:
            request = self._claim_request() if may_claim() else None
            if request is not None and not request.limit:  # no slot is free
                request = None
            requested_at = self.engine.monotonic()
            if not settlements and request is None:
                return None
            try:
                return requested_at, *self.engine.storage.exchange(settlements, request)
            except StorageError as failure:
                # If the store refuses a refusal, too, no outcome is left to try: wait.
                refusable = not any(isinstance(error, StorageRefused) for _, error, _ in done)
                if not settlements or (refusable and isinstance(failure, StorageRefused)) or not self._wait(failure):
                    raise

    def _begin_next(self) -> None:
        """Announce the next claim, and begin its attempt if the claim has started the task."""
        try:
            if self._claimed[0].task.step is not None:
                self._read_inputs()
            task, move = self._claimed.popleft()
        except IndexError:  # handed back by another thread
            return
        engine = self.engine
        if task.id in engine.running and move.path[-1] == START:
            claim = Claim(task, move)
            if self._earlier.has(claim) and self._earlier.postpone(claim, has_slots=self._slots is not None):
                return
        began = self.last_begun = engine.monotonic()
        self._running[task.id] = began, task  # already now: the handlers may keep this worker busy
        starts = False
        try:
            starts = self._announce_claim(task, move)
        finally:
            if not starts:
                del self._running[task.id]
        if not starts:
            return
        if self._interrupted:
            self._end(task, _NOT_BEGUN, None)
        elif task.name not in engine.functions:
            self.unknown.add(task.name)
            self._end(task, _NOT_BEGUN, None)
        else:
            engine.running[task.id] = self
            self.runner.begin(task, self._end)
        if self._slots is None:
            self._pace.note(task.name, self._ended_at - began)

    def _read_inputs(self) -> None:
        """Read what the claimed steps of workflows get from other tasks; wait while the store cannot be read."""
        while True:
            try:
                read_inputs(self.engine, [task for task, move in list(self._claimed) if move.path[-1] == START])
            except StorageError as failure:
                if not self._wait(failure):
                    raise
            else:
                return

    def _announce_claim(self, task: Task, move: Move) -> bool:
        """Announce a claim; return True if the task has started, and still belongs to this worker."""
        engine = self.engine
        if move.ended is not None:  # revoked, expired or skipped
            log_end(task, move)
        if task.loads is None:  # else it was set with the inputs of a step
            task.loads = engine.serializer.loads
        if not engine.announce(task, move, self._requested_at):
            return False
        if move.path[-1] == START:
            return True
        engine.release((task,))
        return False

    def _end(self, task: Task, outcome: Outcome, error: BaseException | None) -> None:
        """Note that an attempt has ended; called in any thread."""
        self._ended_at = now = self.engine.monotonic()
        if self._interrupted and outcome.trigger == INTERRUPT:  # not the task's fault
            outcome = attrs.evolve(outcome, free=True)
        done, running = (self._settlement(task, outcome), error, now - self._running[task.id][0]), self.engine.running
        if self._slots is None:  # this is the worker's thread: spares a lock
            self._done.append(done)
            del self._running[task.id]
            if running.get(task.id) is self:
                del running[task.id]
            self._canceled.clear()
            self.attempts += 1
            return
        with self._mutex:  # in one step: once the outcome is there it may be settled, and the task begin once more
            del self._running[task.id]
            if running.get(task.id) is self:
                del running[task.id]
            self._canceled.discard(task.id)
            self._done.append(done)
            self.attempts += 1
        self._ended.set()
        if self._watching:
            self.engine.storage.wake()

    def _settlement(self, task: Task, outcome: Outcome) -> Settlement:
        engine = self.engine
        now = engine.clock.now() if self._now is None else self._now
        if outcome.trigger == COMPLETE:
            return Settlement(task, policies.settle(task, outcome, now, worker=self.name))
        move = policies.settle(
            task,
            outcome,
            now,
            worker=self.name,
            jitter=random.random() if task.retry.jitter else 0.0,  # noqa: S311 -- spreads retries, hides nothing
            max_interruptions=engine.interruption_limit(task.name),
        )
        if move.states[-1].name in WAITING:  # the next attempt must not be announced before this one's outcome
            move.lease = move.hold_until = engine.hold_until(task.state, move.path, now)
        return Settlement(task, move)


def pop_all(entries: deque[T]) -> list[T]:
    """Take all entries; safe while another thread does the same."""
    taken: list[T] = []
    while True:
        try:
            taken.append(entries.popleft())
        except IndexError:
            return taken
