"""A worker that has many tasks run at once, and does all that is to be done with the store for them."""

import threading
from collections.abc import Callable
from copy import copy
from typing import Final

from lifecycle.core.policies import Outcome
from lifecycle.core.table import EXECUTING, INTERRUPT, START
from lifecycle.core.task import Task
from lifecycle.errors import StorageError, TaskCanceled
from lifecycle.execution.async_runner import AsyncRunner
from lifecycle.execution.engine import Engine
from lifecycle.execution.worker import Worker, drained, give_up
from lifecycle.storage.base import Channel, ClaimRequest

__all__ = ["Desk"]

CHUNK: Final = 64
"""How many tasks it claims at a time, at the most: others may be idle."""


class Desk(Worker):
    """Claims as many tasks as it has room for; their outcomes are settled together, as they come in."""

    def __init__(
        self,
        engine: Engine,
        name: str,
        slots: int,
        wait: Callable[[StorageError], bool] = give_up,
        enter: Callable[[], object] = lambda: None,
    ) -> None:
        """`slots`: how many bodies run at once, at the most; `enter`: see `AsyncRunner`; the rest as in `Worker`."""
        super().__init__(engine, name, wait)
        self.crowd = AsyncRunner(engine, self._back, enter)
        self._slots = slots
        self._at_work: dict[str, tuple[float, Task]] = {}
        """Id → since when, and the task: the oldest first."""
        self._told: set[str] = set()
        self._mutex = threading.Lock()
        """Held while an outcome comes in: it is seen at work, or as done, and by nobody as neither."""
        self._returned = threading.Event()
        self._watching = False

    @property
    def idle(self) -> bool:
        """Does nothing run, and is everything settled?"""
        with self._mutex:
            return not (self._at_work or self._done or self._claimed)

    def turn(self, go_on: Callable[[], bool]) -> bool:
        """Settle what has ended, claim what there is room for if `go_on`, and have it begin. Was there anything?"""
        ended = bool(self._done)
        self._exchange(lambda: go_on() and len(self._at_work) < self._slots, None)
        begun = bool(self._claimed)
        while self._claimed:
            self._begin()
        return ended or begun

    def rest(self, generation: int | None, timeout: float) -> None:
        """Wait until an outcome comes in, or, since `generation`, work; or `timeout` seconds."""
        if generation is None or len(self._at_work) >= self._slots:
            self._returned.wait(timeout)
        else:
            self._watching = True
            if not self._done:  # whatever comes in from now on wakes it
                self.engine.bare.wait(Channel.WORK, generation, timeout)
            self._watching = False
        self._returned.clear()

    @property
    def longest(self) -> float:
        """Seconds that the oldest of what it runs has been running; 0 if nothing runs."""
        for since, _ in list(self._at_work.values()):
            return self.engine.tick() - since
        return 0.0

    def cancel(self, task_id: str) -> bool:
        """See `Worker.cancel`."""
        _, task = self._at_work.get(task_id, (0.0, None))
        if task is None:
            return False
        task.canceling = True
        if task_id not in self._told and self.crowd.throw(TaskCanceled, task_id):
            self._told.add(task_id)
        return task_id in self._told

    def interrupt(self) -> None:
        """See `Worker.interrupt`."""
        self._interrupted = True
        self.crowd.interrupt()

    def put_back(self) -> None:
        """See `Worker.put_back`."""
        with self._mutex:
            at_work = [task for _, task in self._at_work.values()]
        self.relieve()  # settles what has ended meanwhile, so that it is not put back
        for task in [copy(task) for task in at_work]:
            if task.state == EXECUTING:
                self.conclude(task, Outcome(INTERRUPT))

    def _claim_request(self, now: float | None, limit: int) -> ClaimRequest:
        free = min(self._slots - len(self._at_work), CHUNK)
        return super()._claim_request(now, limit)._replace(limit=free, batchable=None)

    def _begin(self) -> None:
        """Announce the next claim, and have its body run if it was started."""
        claims = drained(self._claimed, 1)
        if not claims:  # relieved
            return
        task, move = claims[0]
        engine = self.engine
        self.since = engine.tick()
        self._at_work[task.id] = self.since, task  # already: its handlers may hold this worker up
        if not engine.announce(engine.bind(task), move, self._asked):
            del self._at_work[task.id]
        elif move.path != (START,):
            del self._at_work[task.id]
            engine.release((task,))
        else:
            self.crowd.begin(task)  # which knows whether anything shall begin any more

    def _back(self, task: Task, outcome: Outcome, error: BaseException | None) -> None:
        """A body is over."""
        done = self._outcome(task, outcome, error, None)
        with self._mutex:  # at once: as soon as it is done it may be settled, and begin once more
            del self._at_work[task.id]
            self._told.discard(task.id)
            self._done.append(done)
            self.ran += 1
        self._returned.set()
        if self._watching:
            self.engine.bare.wake()
