"""The ticks of a queue's periodic tasks, made by any number of consumers: each tick once.

The store keeps, for each periodic task, the moment up to which ticks have been made. A consumer stores the next such
moment and the tasks of the ticks in one transaction, and only if no other consumer has stored one since the last read.
"""

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

import attrs

from lifecycle.core.schedules import Misfire, Schedule, due_ticks
from lifecycle.core.task import Task
from lifecycle.execution.engine import Engine
from lifecycle.execution.interruption import shielded
from lifecycle.execution.new_tasks import prepare
from lifecycle.storage.base import Actor, PeriodicState, Tick

__all__ = ["PeriodicTask", "Ticker"]

log = logging.getLogger("lifecycle.consumer")

FAULT_PAUSE_SECONDS: Final = 60.0
"""The time after which a schedule that has raised is asked again."""


@attrs.frozen
class PeriodicTask:
    """A declared periodic task."""

    name: str
    """The name of its function."""
    schedule: Schedule
    misfire: Misfire
    make: Callable[[], Task]
    """Returns a new task of the function."""


class _Look(NamedTuple):
    """The finding of a look at a periodic task."""

    task: PeriodicTask
    at: float
    """The moment of the look."""
    next_at: float
    """No tick is due before this moment."""


class Ticker:
    """Makes the ticks of the periodic tasks that a process has declared. Used by one thread at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.tasks: dict[str, PeriodicTask] = {}
        """The declared periodic tasks, by name; any thread may add one at any time."""
        self._looks: dict[str, _Look] = {}
        """The latest look at each task, by name."""

    def next_look_at(self) -> float:
        """Return the moment of the next tick, as far as is known; infinite: there is none."""
        return min((look.next_at for look in self._looks.values()), default=float("inf"))

    def make_ticks(self, now: float) -> list[Task]:
        """Enqueue the tasks of the ticks that are due and that no other process has made; return the tasks.

        Calls the store only if a tick is due. Raises `StorageError`: then the other ticks are still due.
        """
        due = [task for task in list(self.tasks.values()) if self._may_be_due(task, now)]
        if not due:
            return []
        states = {state.name: state for state in self._engine.storage.periodic_states()}
        made: list[Task] = []
        for task in due:
            state, next_at = states.get(task.name), now + FAULT_PAUSE_SECONDS
            try:
                ticks, until = ([], now) if state is None else due_ticks(task.schedule, state.ticked, now, task.misfire)
                after = task.schedule.after(until)
            except Exception:  # of a user's function
                log.exception("the schedule of a periodic task raised: task=%s", task.name)
            else:
                made += self._make(task, state, ticks, until, now)
                next_at = next_at if after is None else after
            self._looks[task.name] = _Look(task, now, next_at)
        return made

    def _may_be_due(self, task: PeriodicTask, now: float) -> bool:
        look = self._looks.get(task.name)
        # If the clock was set back, or the task declared anew, the look is worth nothing.
        return look is None or look.task is not task or not look.at <= now < look.next_at

    def _make(
        self, periodic: PeriodicTask, state: PeriodicState | None, ticks: Sequence[float], until: float, now: float
    ) -> list[Task]:
        """Store a tick until a moment, with a task for each of `ticks`; return the tasks, none if the store refuses."""
        if state is not None and not ticks and until >= state.ticked:
            return []
        tasks = [periodic.make() for _ in ticks]
        if not self._enqueue(Tick(periodic.name, None if state is None else state.ticked, until), tasks, now):
            return []
        if state is not None and until < state.ticked:
            tick = datetime.fromtimestamp(state.ticked, UTC).isoformat()
            log.warning("ticks begin anew, since the latest is in the future: task=%s tick=%s", periodic.name, tick)
        return tasks

    @shielded
    def _enqueue(self, tick: Tick, tasks: Sequence[Task], now: float) -> bool:
        """Store a tick with its tasks, and announce the tasks; return False if the store has refused the tick."""
        engine, requested_at = self._engine, self._engine.monotonic()
        prepare(tasks, now, engine.serializer, engine.functions, engine.max_bytes, checked=True)
        hold_until = now + engine.lease if tasks and engine.signals.announces_births else None
        with engine.keeping_leases(hold_until):
            moves = engine.storage.tick(tick, tasks, now, Actor(engine.process_name(), hold_until))
            if moves is None:
                return False
            for task, move in zip(tasks, moves, strict=True):
                engine.announce(task, move, requested_at)
            if hold_until is not None:
                engine.release(tasks)
        if tasks and engine.after_enqueue is not None:
            engine.after_enqueue()
        return True
