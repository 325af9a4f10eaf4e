"""Scenarios: the SQLite file of running consumers is removed or replaced, or its log is removed."""

from pathlib import Path

from faults.outages import start_consumers, under_load
from faults.trial import LOOK, Trial, pause
from support.processes import until

from lifecycle import TaskQueue

__all__ = ["files", "logs"]

LEFT = ("lost all tasks: the file was removed", "left a file: another one has replaced it")
LOST = "lost an outcome"
APART = 3.0
"""Seconds between two removals of a log, more than all processes need to notice one."""
LOG_LEFT = ("saved the log of a file", "left the log of a file")


def files(trial: Trial) -> None:
    """Remove and replace the file, in turn: consumers say so, tell of lost outcomes, and run what is enqueued later."""
    options = trial.options
    start_consumers(trial)
    for number in range(options.kills):
        ids = trial.begin_lingering()
        trial.gone |= set(trial.wanted)
        trial.wanted = {}
        before = [member.count_in_log(*LEFT) for member in trial.consumers.members]
        trial.disturbances += 1
        if number % 2:
            _replace(trial)
        else:
            _file(trial).unlink()
        until(
            lambda before=before: all(
                member.count_in_log(*LEFT) > count
                for member, count in zip(trial.consumers.members, before, strict=True)
            ),
            "the log lines of consumers whose file has changed",
        )
        pause(LOOK)  # longer than the time between two looks
        trial.enqueue(trial.mix(options.tasks // options.kills))
        trial.release_file.touch()
        trial.settle()
        until(lambda ids=ids: not _untold(trial, ids), "the log lines of lost outcomes")
        trial.count("outcomes lost and told", len(ids))
    trial.problems += trial.consumers.drain()


def _replace(trial: Trial) -> None:
    """Replace the file by that of another queue, which has tasks."""
    other = trial.folder / "other.db"
    queue = TaskQueue(f"sqlite:///{other}", name=trial.queue.name)
    trial.enqueue(trial.mix(trial.options.workers), queue)
    queue.close()
    other.rename(_file(trial))


def _file(trial: Trial) -> Path:
    return Path(trial.place.url.removeprefix("sqlite:///"))


def _untold(trial: Trial, ids: list[str]) -> list[str]:
    """Return the ids that no line about a lost outcome names."""
    logs = [line for member in trial.consumers.members for line in member.log.read_text().splitlines() if LOST in line]
    return [task_id for task_id in ids if not any(task_id in line for line in logs)]


def logs(trial: Trial) -> None:
    """Remove the log under load, again and again: no task and no outcome is lost."""

    def act() -> None:
        Path(f"{_file(trial)}-wal").unlink(missing_ok=True)
        pause(APART)

    start_consumers(trial)
    trial.begin_lingering()  # all processes have opened the file: one that opens the file now could damage it
    trial.release_file.touch()
    under_load(trial, act)
    trial.count("times left or saved", trial.consumers.count_in_log(*LOG_LEFT))
    trial.problems += trial.consumers.drain()
