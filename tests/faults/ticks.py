"""Scenario: consumers with periodic tasks are killed again and again; each tick has one task."""

import time
from collections import Counter

from faults.storm import Storm
from faults.trial import LOOK, STUCK, Trial, pause

from lifecycle.core.schedules import CronSchedule, IntervalSchedule, Schedule
from lifecycle.core.task import Task
from lifecycle.storage.base import Actor, Tick

__all__ = ["begin", "compare", "ticks"]

SCHEDULES: dict[type, Schedule] = {str: CronSchedule("* * * * * *"), float: IntervalSchedule(1.0)}
"""The rules of `programs/work.py`, by the type of the rule."""


def ticks(trial: Trial) -> None:
    """Make ticks until there are enough tasks, and kill consumers at any moment; then compare tasks and ticks."""
    first = begin(trial)
    trial.consumers.setting["ticks"] = True
    kills = Storm(trial, [])
    latest, seen = time.monotonic(), 0
    while not kills.over or trial.begun() < trial.options.tasks:
        kills.look()
        pause(LOOK / 10)  # kills come while ticks are made
        if (begun := trial.begun()) > seen:
            latest, seen = time.monotonic(), begun
        elif time.monotonic() > latest + STUCK:
            trial.add_problem(f"after {begun} begun functions no further one has begun")
            break
    if not kills.over:
        trial.add_problem(f"only {trial.disturbances} of {trial.options.kills} kills could be made")
    trial.problems += trial.consumers.drain()
    compare(trial, first)
    trial.consumers.setting["ticks"] = False
    for kind in trial.options.kinds:
        trial.consumers.start(kind, trial.options.workers)
    trial.settle()
    trial.problems += trial.consumers.drain()


def begin(trial: Trial) -> float:
    """Let ticks begin now; return the moment."""
    now = trial.queue.engine.clock.now()
    for name in trial.work.RULES:
        trial.queue.storage.tick(Tick(name, None, now), (), now, Actor("faults", None))
    return now


def compare(trial: Trial, first: float) -> None:
    """Compare the tasks of each function with the ticks from the first moment to the one that the store knows."""
    states = {state.name: state for state in trial.queue.storage.periodic_states()}
    for name, rule in trial.work.RULES.items():
        tasks = _tasks(trial, name)
        trial.wanted |= {task.id: name for task in tasks}
        wanted = _ticks(SCHEDULES[type(rule)], first, states[name].ticked)
        if len(tasks) != len(wanted):
            trial.add_problem(f"{name} has {len(wanted)} ticks and {len(tasks)} tasks: {_shown(wanted, tasks)}")
        early = [task.id for tick, task in zip(wanted, tasks, strict=False) if (task.enqueued_at or 0.0) < tick]
        if early:
            trial.add_problem(f"tasks of {name} were enqueued before their ticks: {early}")
        if not tasks:
            trial.add_problem(f"{name} has no tick")
        trial.count("ticks", len(wanted))


def _tasks(trial: Trial, name: str) -> list[Task]:
    """Return the tasks of a function, the oldest first."""
    found: list[Task] = []
    while page := trial.queue.tasks(name=name, limit=500, before=found[-1] if found else None):
        found += page
    return found[::-1]


def _ticks(schedule: Schedule, first: float, last: float) -> list[float]:
    """Return the ticks after the first moment, up to the last."""
    found: list[float] = []
    tick = schedule.after(first)
    while tick is not None and tick <= last:
        found.append(tick)
        tick = schedule.after(tick)
    return found


def _shown(wanted: list[float], tasks: list[Task]) -> str:
    """Return the seconds of the ticks that do not have one task each, with the number of tasks enqueued in that second."""
    made = Counter(int(task.enqueued_at or 0) for task in tasks)
    return ", ".join(f"{tick:.0f}: {made[int(tick)]}" for tick in wanted if made[int(tick)] != 1)
