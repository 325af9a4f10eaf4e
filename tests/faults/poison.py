"""Scenario: tasks that kill their worker every time."""

from faults.audit import BEGIN
from faults.trial import Trial

from lifecycle.core.table import INTERRUPTED

__all__ = ["poison"]


def poison(trial: Trial) -> None:
    """Run tasks that kill their worker: they rest after too many interruptions, and all other tasks end.

    Dead consumers are replaced, as a supervisor does. Consumers of threads or coroutines have one slot here: a poison
    would interrupt all tasks of its process, again and again.
    """
    options = trial.options
    innocent = trial.mix(options.tasks)
    poisons = [trial.work.poison.s() for _ in range(options.kills)]
    tasks = [*innocent, *poisons]
    trial.rng.shuffle(tasks)
    kind = options.kinds[0]
    workers = options.workers if kind == "process" else 1

    def supervise() -> None:
        for _ in range(2 - len(trial.consumers.alive)):
            trial.consumers.start(kind, workers)

    supervise()
    trial.enqueue(tasks)
    trial.settle(supervise)
    ids = {task.id for task in poisons}
    trial.disturbances = sum(line.what == BEGIN and line.task in ids for line in trial.lines())
    allowed = trial.queue.engine.max_interruptions
    for task_id in ids:
        taken = [record.state for record in trial.queue.history(task_id)].count(INTERRUPTED)
        if taken != allowed + 1:
            trial.add_problem(f"poison {task_id} was interrupted {taken} times, where {allowed} are allowed")
    trial.count("consumers died", len(trial.consumers.members) - len(trial.consumers.alive))
    trial.problems += trial.consumers.drain()
