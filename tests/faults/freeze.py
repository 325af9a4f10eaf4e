"""A consumer is frozen past its lease, another one takes over, and the first comes back and wants to have its say."""

from faults.crew import REFUSED
from faults.trial import Trial
from support.processes import until

__all__ = ["freeze"]


def freeze(trial: Trial) -> None:
    """Each of the frozen consumer's tasks is run by another one; whatever the first says of them then is refused.

    In every other round the second consumer has finished by then; in the others both finish at once.
    """
    for number in range(trial.options.kills):
        _round(trial, finished_first=number % 2 == 0)
        trial.gate.unlink()


def _round(trial: Trial, *, finished_first: bool) -> None:
    workers, kind = trial.options.workers, trial.options.kinds[0]
    trial.disturbances += 1
    tasks = [trial.work.linger.s() for _ in range(workers)]
    zombie = trial.crew.hire(kind, workers)
    trial.enqueue(tasks)
    ids = {task.id for task in tasks}

    def begun(member: int, what: str = "begin") -> bool:
        return ids <= {line.task for line in trial.lines() if (line.what, line.member) == (what, member)}

    until(lambda: begun(zombie.number), "the beginning of all that is to be frozen")
    file = trial.place.url.removeprefix("sqlite:///") if trial.place.kind == "sqlite" else None
    zombie.freeze(file)
    heir = trial.crew.hire(kind, workers)
    more = trial.mix(workers * 3)
    trial.enqueue(more)
    until(lambda: begun(heir.number), "the beginning of all that was taken over")
    if finished_first:
        trial.gate.touch()
        trial.settle()
    zombie.thaw()
    trial.gate.touch()
    trial.settle()
    until(lambda: begun(zombie.number, "end"), "the end of all that was frozen")
    try:
        until(lambda: zombie.said(*REFUSED) >= workers, "the refusal of all that was frozen")
    except AssertionError as error:
        trial.complain(str(error) or repr(error))
    trial.complaints += trial.crew.drain()
