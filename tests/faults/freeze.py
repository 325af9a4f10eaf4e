"""Scenario: a consumer is frozen past its lease, another one runs its tasks, and the first one continues."""

from faults.consumer_processes import REFUSED
from faults.trial import Trial
from support.processes import until

__all__ = ["freeze"]


def freeze(trial: Trial) -> None:
    """Freeze a consumer: another one runs its tasks, and the outcomes of the frozen one are refused.

    In every other round the second consumer finishes before the first one continues; else both finish at once.
    """
    for number in range(trial.options.kills):
        _round(trial, finished_first=number % 2 == 0)
        trial.release_file.unlink()


def _round(trial: Trial, *, finished_first: bool) -> None:
    workers, kind = trial.options.workers, trial.options.kinds[0]
    trial.disturbances += 1
    tasks = [trial.work.linger.s() for _ in range(workers)]
    frozen = trial.consumers.start(kind, workers)
    trial.enqueue(tasks)
    ids = {task.id for task in tasks}

    def begun(member: int, what: str = "begin") -> bool:
        return ids <= {line.task for line in trial.lines() if (line.what, line.member) == (what, member)}

    until(lambda: begun(frozen.number), "the begin of the tasks to freeze")
    file = trial.place.url.removeprefix("sqlite:///") if trial.place.kind == "sqlite" else None
    frozen.freeze(file)
    successor = trial.consumers.start(kind, workers)
    more = trial.mix(workers * 3)
    trial.enqueue(more)
    until(lambda: begun(successor.number), "the begin of the recovered tasks")
    if finished_first:
        trial.release_file.touch()
        trial.settle()
    frozen.thaw()
    trial.release_file.touch()
    trial.settle()
    until(lambda: begun(frozen.number, "end"), "the end of the frozen tasks")
    try:
        until(lambda: frozen.count_in_log(*REFUSED) >= workers, "the refusal of the frozen tasks' outcomes")
    except AssertionError as error:
        trial.add_problem(str(error) or repr(error))
    trial.problems += trial.consumers.drain()
