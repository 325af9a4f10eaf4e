"""Tasks that take their worker with them, every time."""

from faults.trial import Trial

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
    trial.disturbances = sum(
        line.what == "begin" and line.task in {task.id for task in poisons} for line in trial.lines()
    )
    if trial.disturbances != (expected := len(poisons) * (trial.queue.engine.max_interruptions + 1)):
        trial.complain(f"poison was taken {trial.disturbances} times, not {expected}")
    trial.count("consumers died", len(trial.crew.members) - len(trial.crew.alive))
    trial.complaints += trial.crew.drain()
