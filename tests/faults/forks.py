"""Scenario: functions that fork children which return from the function, or exit with codes of their own."""

from faults.audit import BEGIN
from faults.outages import start_consumers
from faults.trial import Trial

__all__ = ["forks"]

CODES = (0, 7)
"""Exit codes of the children; 0: the child returns from the function."""
SHARE = 0.1
"""Share of the tasks that fork."""


def forks(trial: Trial) -> None:
    """Run functions that fork among others: each child ends, with its code, and touches neither task nor store."""
    options = trial.options
    start_consumers(trial)
    forking = [trial.work.forking.s(code) for _ in range(max(1, round(options.tasks * SHARE / 2))) for code in CODES]
    tasks = [*trial.mix(options.tasks - len(forking)), *forking]
    trial.rng.shuffle(tasks)
    trial.enqueue(tasks)
    trial.settle()
    ids = {task.id for task in forking}
    trial.disturbances = sum(line.what == BEGIN and line.task in ids for line in trial.lines())
    processes = {(member.number, one.pid) for member in trial.consumers.alive for one in member.all()}
    workers = {(line.member, line.pid) for line in trial.lines() if line.what == BEGIN}
    if strangers := workers - processes:
        trial.add_problem(f"functions began in processes that are no workers: {strangers}")
    trial.problems += trial.consumers.drain()
