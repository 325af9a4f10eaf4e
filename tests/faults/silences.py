"""Scenarios: the store is away, or has no memory, for longer than the lease, while tasks run."""

from faults.audit import BEGIN
from faults.outages import start_consumers, stop_and_check_logs
from faults.trial import LOOK, Trial, pause
from support.processes import until

from lifecycle import StorageFull
from lifecycle.core.table import INTERRUPTED

__all__ = ["full", "silence"]

LONGER = 2.0
"""Length of an outage, in leases."""
IMPATIENT = {"sqlite": "?timeout=0.5", "postgres": "?connect_timeout=1", "redis": "?patience=0.5"}
"""Options of the URL with which callers soon learn of an outage."""
FULL = "Redis is full"


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


def full(trial: Trial) -> None:
    """Leave Redis no memory for longer than the lease: callers and workers are told so, and all leases stay."""
    _start(trial)
    for _ in range(trial.options.kills):
        ids = trial.begin_lingering()
        waiting = trial.mix(trial.options.workers)
        trial.enqueue(waiting)
        before = trial.consumers.count_in_log(FULL)
        trial.disturbances += 1
        trial.place.limit_memory(1)
        try:
            _check_refusal(trial)
            pause(LONGER * trial.lease)
            trial.release_file.touch()  # the tasks end without room for their outcomes
            until(lambda before=before: trial.consumers.count_in_log(FULL) > before, "the log line of a full Redis")
        finally:
            trial.place.limit_memory(0)
        trial.settle()
        _check_only_attempts(trial, ids)
    stop_and_check_logs(trial, trial.disturbances)


def _start(trial: Trial) -> None:
    trial.setting["url"] = trial.place.url + IMPATIENT[trial.place.kind]
    start_consumers(trial)


def _check_refusal(trial: Trial) -> None:
    """Report a problem unless an enqueue is refused, with the reason."""
    task = trial.work.steady.s(0.0)
    try:
        trial.queue.enqueue(task)
    except StorageFull as error:
        trial.count("enqueues refused")
        if FULL not in str(error):
            trial.add_problem(f"an enqueue was refused without the reason: {error}")
    else:
        trial.wanted[task.id] = task.name
        trial.add_problem("an enqueue was taken, though Redis has no memory")


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
