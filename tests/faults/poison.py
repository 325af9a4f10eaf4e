"""Tasks that take their worker with them, every time."""

from faults.audit import BEGIN
from faults.trial import Trial

from lifecycle.core.table import INTERRUPTED

__all__ = ["poison"]


def poison(trial: Trial) -> None:
    """After as many interruptions as are allowed they rest, and all the others are done.

    Somebody starts a consumer again when it has died, as a supervisor does. Where workers share a process a poison takes
    all with it that runs beside it, and may do so again and again: they work alone here.
    """
    options = trial.options
    innocent = trial.mix(options.tasks)
    poisons = [trial.work.poison.s() for _ in range(options.kills)]
    tasks = [*innocent, *poisons]
    trial.chance.shuffle(tasks)
    kind = options.kinds[0]
    workers = options.workers if kind == "process" else 1

    def supervise() -> None:
        for _ in range(2 - len(trial.crew.alive)):
            trial.crew.hire(kind, workers)

    supervise()
    trial.enqueue(tasks)
    trial.settle(supervise)
    ids = {task.id for task in poisons}
    trial.disturbances = sum(line.what == BEGIN and line.task in ids for line in trial.lines())
    allowed = trial.queue.engine.max_interruptions
    for task_id in ids:
        taken = [record.state for record in trial.queue.history(task_id)].count(INTERRUPTED)
        if taken != allowed + 1:
            trial.complain(f"poison {task_id} was interrupted {taken} times, where {allowed} are allowed")
    trial.count("consumers died", len(trial.crew.members) - len(trial.crew.alive))
    trial.complaints += trial.crew.drain()
