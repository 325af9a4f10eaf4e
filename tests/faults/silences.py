"""Scenario: the store is away for longer than the lease, while tasks run."""

from faults.audit import BEGIN
from faults.outages import start_consumers, stop_and_check_logs
from faults.trial import LOOK, Trial, pause

from lifecycle.core.table import INTERRUPTED

__all__ = ["silence"]

LONGER = 2.0
"""Length of an outage, in leases."""
IMPATIENT = {"sqlite": "?timeout=0.5", "postgres": "?patience=0.5", "redis": "?patience=0.5"}
"""Options of the URL with which callers soon learn of an outage."""


def silence(trial: Trial) -> None:
    """Take the store away for longer than the lease: running tasks go on, and no function begins a second time.

    In every other round the tasks end during the outage, and their outcomes are stored after the outage.
    """
    _start(trial)
    for number in range(trial.options.kills):
        ids = trial.begin_lingering()
        trial.disturbances += 1
        with trial.place.away():
            if number % 2:
                trial.release_file.touch()
            pause(LONGER * trial.lease)
        trial.enqueue(trial.mix(trial.options.workers))
        pause(trial.lease)  # for a recovery, if there is one
        trial.release_file.touch()
        trial.settle()
        _check_only_attempts(trial, ids)
    stop_and_check_logs(trial, trial.disturbances)


def _start(trial: Trial) -> None:
    trial.setting["url"] = trial.place.url + IMPATIENT[trial.place.kind]
    start_consumers(trial)


def _check_only_attempts(trial: Trial, ids: list[str]) -> None:
    """Report each of these tasks that was interrupted, or whose function began twice."""
    begun = [line.task for line in trial.lines() if line.what == BEGIN]
    for task_id in ids:
        if (count := begun.count(task_id)) != 1:
            trial.add_problem(f"the function of task {task_id} began {count} times")
        if any(record.state == INTERRUPTED for record in trial.queue.history(task_id)):
            trial.add_problem(f"task {task_id} was interrupted, though its consumer ran on")
    trial.count("running tasks", len(ids))
    pause(LOOK)
