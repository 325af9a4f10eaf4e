"""Scenario: consumers and single worker processes are killed again and again."""

from collections.abc import Iterable
from contextlib import suppress
from math import ceil

import psutil
from faults.audit import BEGIN
from faults.consumer_processes import ConsumerProcess
from faults.trial import Trial

from lifecycle import IllegalTransition, UnknownTask

__all__ = ["storm"]

EARLIEST, LATEST = 0.02, 0.9
"""Shares of begun tasks between which kills come."""
UNWANTED = 0.01
"""Share of the tasks that are canceled."""
CHILD = 0.5
"""Share of kills that hit a single worker process, where workers are processes."""


class Storm:
    """Kills consumers at random counts of begun tasks, and starts others; cancels tasks."""

    def __init__(self, trial: Trial, unwanted: Iterable[str]) -> None:
        """`unwanted`: ids of tasks that run until they are canceled."""
        self._trial, self._unwanted = trial, list(unwanted)
        options = trial.options
        self._moments = sorted(trial.rng.uniform(EARLIEST, LATEST) * options.tasks for _ in range(options.kills))
        for kind in trial.consumer_kinds():
            self._start(kind)

    def _start(self, kind: str) -> None:
        self._trial.consumers.start(kind, self._trial.options.workers)

    def look(self) -> None:
        """Cancel a task; kill a consumer or a worker if a kill is due."""
        trial = self._trial
        if self._unwanted:
            self._cancel(trial.rng.choice(self._unwanted))
        if not self._moments or trial.begun() < self._moments[0]:
            return
        begun: dict[int, set[int]] = {}  # member → the processes in which its tasks run
        for line in trial.lines():
            if line.what == BEGIN:
                begun.setdefault(line.member, set()).add(line.pid)
        victims = [
            member for member in trial.consumers.alive if member.number in begun
        ]  # only consumers that have begun a task
        if victims:
            self._moments.pop(0)
            member = trial.rng.choice(victims)
            self._kill(member, [one for one in member.all()[1:] if one.pid in begun[member.number]])

    def _cancel(self, task_id: str) -> None:
        """Request a cancellation again until the task rests: its worker may be killed before it cancels."""
        try:
            self._trial.queue.cancel(task_id)
        except IllegalTransition:  # it rests
            self._unwanted.remove(task_id)
            self._trial.count("canceled")
        except UnknownTask:  # not enqueued yet
            pass

    def _kill(self, member: ConsumerProcess, workers: list[psutil.Process]) -> None:
        trial = self._trial
        trial.disturbances += 1
        if workers and trial.rng.random() < CHILD:
            with suppress(psutil.NoSuchProcess):
                trial.rng.choice(workers).kill()
            trial.count("workers killed")
        else:
            member.kill()
            trial.count("consumers killed")
            self._start(member.kind)

    @property
    def over(self) -> bool:
        """True after the last kill."""
        return not self._moments


def storm(trial: Trial) -> None:
    """Run many tasks of every kind, cancel some, and kill consumers at any moment.

    Half of the tasks are enqueued at the beginning, the others while the consumers run.
    """
    unwanted = [trial.work.unwanted.s() for _ in range(ceil(trial.options.tasks * UNWANTED))]
    tasks = [*trial.mix(trial.options.tasks - len(unwanted)), *unwanted]
    trial.rng.shuffle(tasks)
    half = len(tasks) // 2
    trial.enqueue(tasks[:half])
    kills = Storm(trial, [task.id for task in unwanted])
    rest = tasks[half:]
    while rest:
        size = trial.rng.randint(1, 50)
        trial.enqueue(rest[:size])
        rest = rest[size:]
        kills.look()
    trial.settle(kills.look)
    if not kills.over:
        trial.add_problem(f"only {trial.disturbances} of {trial.options.kills} kills could be made")
    trial.problems += trial.consumers.drain()
