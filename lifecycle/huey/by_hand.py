"""The part of `Huey` that looks at the queue, and drives it by hand: for tests, prompts and monitoring."""

from collections.abc import Iterator
from datetime import datetime

from lifecycle.core.policies import OUTCOMES, WAITING
from lifecycle.core.table import COMPLETED, ENQUEUE, PENDING, QUEUED, SCHEDULED, SKIP
from lifecycle.core.task import Task as CoreTask
from lifecycle.execution.stored_result import read_error, unpack
from lifecycle.huey.base import HueyBase
from lifecycle.huey.tasks import PeriodicTask, Task, inner_task, view
from lifecycle.huey.utils import Error
from lifecycle.validation import whole_number

__all__ = ["ByHand"]

PAGE = 1000
"""Tasks read at a time."""
_WITH_RESULT = (COMPLETED.name, *sorted(OUTCOMES))


class ByHand(HueyBase):
    """Base class of `Huey`: looks, and steps of a worker, one by one.

    `dequeue` and `read_schedule` look only: a task that a program takes and never executes stays in the store, and a
    consumer runs it. Each call here reads all waiting tasks, so a program with many uses a consumer.
    """

    def __init__(self) -> None:
        self._in_hand: set[str] = set()
        """Ids of the tasks that this object has handed out."""
        self._back: dict[str, None] = {}
        """Ids of scheduled tasks that were handed out, and enqueued again; in order."""

    # Steps -----------------------------------------------------------------------------------------------------------

    def dequeue(self) -> Task | None:
        """Return the next task of the queue, for `execute`; ``None`` if there is none."""
        line = self._line()
        if not line:
            return None
        self._in_hand.add(line[0].id)
        self._back.pop(line[0].id, None)
        return view(self, line[0])

    def execute(self, task: Task, timestamp: datetime | None = None) -> object:
        """Do with a task, at a moment, as a worker does, and return the value of its function.

        Returns ``None`` if the function was not called, or has raised. Raises `IllegalTransition` if the task does not
        wait.
        """
        inner = inner_task(task)
        self._in_hand.discard(inner.id)
        self._back.pop(inner.id, None)
        if inner.state is None:
            self.queue.enqueue(inner)
        ended = self.queue.run_task(inner.id, self.moment_of(timestamp))
        if ended is None:
            return None
        task.inner = ended
        self._skip_steps()
        return self.queue.handle(ended.id).get() if ended.state == COMPLETED else None

    def ready_to_run(self, task: Task, timestamp: datetime | None = None) -> bool:
        """Return whether a task is due, now or at a moment."""
        eta = inner_task(task).eta
        return eta is None or eta <= self.moment_of(timestamp)

    def read_schedule(self, timestamp: datetime | None = None) -> list[Task]:
        """Return the scheduled tasks that are due, the earliest first, for `enqueue` or `execute`."""
        now = self.moment_of(timestamp)
        due = [task for task in self._scheduled() if task.eta is not None and task.eta <= now]
        self._in_hand.update(task.id for task in due)
        return [view(self, task) for task in due]

    def read_periodic(self, timestamp: datetime | None = None) -> list[Task]:
        """Return a new task of each periodic function whose rule has this minute, for `enqueue`."""
        at = self.to_datetime(self.moment_of(timestamp))
        return [
            PeriodicTask(inner=declared.make(), huey=self)
            for declared in list(self.declared.values())
            if declared.is_tick is not None and at is not None and declared.is_tick(at)
        ]

    # Looks -----------------------------------------------------------------------------------------------------------

    def pending(self, limit: int | None = None) -> list[Task]:
        """Return the tasks in the queue, the next first, of functions that this program declares."""
        return self._views(self._line(), limit)

    def scheduled(self, limit: int | None = None) -> list[Task]:
        """Return the scheduled tasks, the earliest first, of functions that this program declares."""
        return self._views(self._scheduled(), limit)

    def pending_count(self) -> int:
        """Return the number of tasks in the queue."""
        held = sum(state == QUEUED for state in self._states_in_hand())
        ready = sum(task.id not in self._in_hand for task in self._ready_steps())
        return self.queue.counts()[QUEUED.name] - held + len(self._back) + ready

    def scheduled_count(self) -> int:
        """Return the number of scheduled tasks."""
        held = sum(state == SCHEDULED for state in self._states_in_hand())
        return self.queue.counts()[SCHEDULED.name] - held - len(self._back)

    def __len__(self) -> int:
        return self.pending_count()

    def __bool__(self) -> bool:
        return True

    def result_count(self) -> int:
        """Return the number of tasks that have ended with a value or an error: results stay when they are read."""
        counts = self.queue.counts()
        return sum(counts[name] for name in _WITH_RESULT)

    def all_results(self) -> dict[str, object]:
        """Return the value or the `Error` of each task that has one, by id."""
        engine, found = self.queue.engine, {}
        ids = [task.id for task in self._all(*_WITH_RESULT, *WAITING)]
        for start in range(0, len(ids), PAGE):
            for task_id, status in engine.storage.statuses(ids[start : start + PAGE]).items():
                if status.result is not None:
                    error = read_error(task_id, status.state, status.result)
                    value = engine.serializer.loads(unpack(status.result).data) if error is None else Error(error)
                    found[task_id] = value
        return found

    def flush(self) -> None:
        """Delete everything in the queue."""
        self.queue.flush()
        self._in_hand.clear()
        self._back.clear()

    # Reading ---------------------------------------------------------------------------------------------------------

    def put_back(self, task: CoreTask) -> bool:
        """Put a task that was handed out back into the queue; return False if it was not."""
        if task.id not in self._in_hand or task.state not in WAITING:
            return False
        self._in_hand.discard(task.id)
        if task.state == SCHEDULED:
            self._back[task.id] = None
        return True

    def _views(self, tasks: list[CoreTask], limit: int | None) -> list[Task]:
        known = [view(self, task) for task in tasks if task.name in self.declared]
        return known if limit is None else known[: whole_number(limit, "limit")]

    def _line(self) -> list[CoreTask]:
        """Return the tasks in the queue in the order in which they start."""
        line = [task for task in self._all(QUEUED.name) if task.id not in self._in_hand]
        line += [task for task in self._ready_steps() if task.id not in self._in_hand]
        line += [task for task in map(self.queue.storage.get, self._back) if task is not None]
        return sorted(line, key=lambda task: (-task.priority, task.id in self._back, task.seq))

    def _ready_steps(self) -> list[CoreTask]:
        """Return the steps of workflows whose turn has come, and that no worker has taken yet."""
        return self._decided_steps(ENQUEUE)

    def _skip_steps(self) -> None:
        """Skip the steps that come after a task that did not complete, as a worker does with its next claim."""
        while skipped := self._decided_steps(SKIP):
            for task in skipped:
                self.queue.run_task(task.id)

    def _decided_steps(self, trigger: str) -> list[CoreTask]:
        """Return the steps of workflows that wait for nothing but a claim that applies this trigger."""
        pending = self._all(PENDING.name) if self.queue.counts()[PENDING.name] else []
        verdicts = [(task, None if task.step is None else task.step.verdict) for task in pending]
        return [task for task, verdict in verdicts if verdict is not None and verdict.trigger == trigger]

    def _scheduled(self) -> list[CoreTask]:
        held = self._in_hand | self._back.keys()
        tasks = [task for task in self._all(SCHEDULED.name) if task.id not in held]
        return sorted(tasks, key=lambda task: task.eta or 0.0)

    def _states_in_hand(self) -> Iterator[str | None]:
        for task_id in list(self._in_hand):
            task = self.queue.storage.get(task_id)
            if task is None or task.state not in WAITING:
                self._in_hand.discard(task_id)
            else:
                yield task.state

    def _all(self, *states: str) -> list[CoreTask]:
        """Return all tasks in these states, the oldest first."""
        found: list[CoreTask] = []
        while True:
            page = self.queue.tasks(list(states), PAGE, found[-1] if found else None)
            found += page
            if len(page) < PAGE:
                return found[::-1]
