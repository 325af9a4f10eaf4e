"""Consumers, and single workers, are killed in the midst of it, again and again."""

from collections.abc import Iterable
from contextlib import suppress
from math import ceil

import psutil
from faults.audit import BEGIN
from faults.crew import Member
from faults.trial import Trial

from lifecycle import IllegalTransition, UnknownTask

__all__ = ["storm"]

EARLIEST, LATEST = 0.02, 0.9
"""The part of all work between which kills come."""
UNWANTED = 0.01
"""The part of all tasks that are called off."""
CHILD = 0.5
"""How often it is a single worker, where workers are processes."""


class Storm:
    """Kills members when as much has been done as chance has it, and hires others in their place; calls tasks off."""

    def __init__(self, trial: Trial, unwanted: Iterable[str]) -> None:
        """`unwanted`: tasks, by their ids, that go on until they are called off."""
        self._trial, self._unwanted = trial, list(unwanted)
        options = trial.options
        self._moments = sorted(trial.chance.uniform(EARLIEST, LATEST) * options.tasks for _ in range(options.kills))
        for kind in trial.crowd():
            self._hire(kind)

    def _hire(self, kind: str) -> None:
        self._trial.crew.hire(kind, self._trial.options.workers)

    def look(self) -> None:
        """Is it time?"""
        trial = self._trial
        if self._unwanted:
            self._call_off(trial.chance.choice(self._unwanted))
        if not self._moments or trial.begun() < self._moments[0]:
            return
        begun: dict[int, set[int]] = {}  # member → the processes in which its tasks run
        for line in trial.lines():
            if line.what == BEGIN:
                begun.setdefault(line.member, set()).add(line.pid)
        victims = [member for member in trial.crew.alive if member.number in begun]  # those that have something to lose
        if victims:
            self._moments.pop(0)
            member = trial.chance.choice(victims)
            self._strike(member, [one for one in member.all()[1:] if one.pid in begun[member.number]])

    def _call_off(self, task_id: str) -> None:
        """As often as it takes: whoever was about to end it may be killed first."""
        try:
            self._trial.queue.cancel(task_id)
        except IllegalTransition:  # it rests
            self._unwanted.remove(task_id)
            self._trial.count("called off")
        except UnknownTask:  # not enqueued yet
            pass

    def _strike(self, member: Member, workers: list[psutil.Process]) -> None:
        trial = self._trial
        trial.disturbances += 1
        if workers and trial.chance.random() < CHILD:
            with suppress(psutil.NoSuchProcess):
                trial.chance.choice(workers).kill()
            trial.count("workers killed")
        else:
            member.kill()
            trial.count("consumers killed")
            self._hire(member.kind)

    @property
    def over(self) -> bool:
        """Has it struck as often as it was to?"""
        return not self._moments


def storm(trial: Trial) -> None:
    """Many tasks of every kind, failures and retries, some that are called off, and consumers that die at any moment.

    Half of the tasks are there from the beginning, the others come while the consumers are at work.
    """
    unwanted = [trial.work.unwanted.s() for _ in range(ceil(trial.options.tasks * UNWANTED))]
    tasks = [*trial.mix(trial.options.tasks - len(unwanted)), *unwanted]
    trial.chance.shuffle(tasks)
    half = len(tasks) // 2
    trial.enqueue(tasks[:half])
    weather = Storm(trial, [task.id for task in unwanted])
    rest = tasks[half:]
    while rest:
        size = trial.chance.randint(1, 50)
        trial.enqueue(rest[:size])
        rest = rest[size:]
        weather.look()
    trial.settle(weather.look)
    if not weather.over:
        trial.complain(f"only {trial.disturbances} of {trial.options.kills} kills could be made")
    trial.complaints += trial.crew.drain()
