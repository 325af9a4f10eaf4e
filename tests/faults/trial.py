"""A trial: one scenario on one store. What it does to whom, what it asks for, and what became of it."""

import importlib.util
import json
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import attrs
from faults.audit import Audit, Found, Line, audit
from faults.crew import PROGRAMS, REFUSED, Crew
from faults.places import Place

from lifecycle import DuplicateTask, StorageError, StorageUnavailable, Task, TaskQueue
from lifecycle.core.table import LIFECYCLE, Kind
from lifecycle.storage.base import Channel

__all__ = ["LOOK", "Options", "Trial", "on_trial", "pause"]

RESTLESS = {state.name for state in LIFECYCLE.of_kind(Kind.WAITING, Kind.RUNNING)}
STUCK = 60.0
"""Seconds without any progress after which what is left is taken for lost."""
LOOK = 0.1
"""Seconds between two looks at how far a trial has come."""
PAGE = 500


def pause(seconds: float) -> None:
    """Let the world go on."""
    time.sleep(seconds)


@attrs.frozen
class Options:
    """How much of it."""

    tasks: int = 1000
    kills: int = 5
    """Or freezes, restarts, cuts: how often something is done to somebody."""
    seed: int = 0
    kinds: tuple[str, ...] = ("thread",)
    """Of the consumers, in turn."""
    consumers: int = 3
    workers: int = 4
    interruptions: int = 3
    """After how many of them a task rests, where that is what is tried."""


class Trial:
    """A queue, its consumers, and its producer, which is this process."""

    def __init__(self, place: Place, folder: Path, options: Options, *, lease: float, **queue: object) -> None:
        """`lease` and what follows: the queue's."""
        self.place, self.folder, self.options = place, folder, options
        self.chance = random.Random(options.seed)
        self.gate, self.journal = folder / "gate", folder / "journal"
        self.lease = lease
        self.setting: dict[str, object] = {
            "url": place.url,
            "queue": {"name": f"faults-{options.seed}-{os.getpid()}", "lease": lease, **queue},
            "journal": str(self.journal),
            "gate": str(self.gate),
        }
        self.crew = Crew(folder, self.setting)
        self.work = self._load()
        self.queue: TaskQueue = self.work.queue
        self.wanted: dict[str, str] = {}
        """Id of each task whose enqueuing was confirmed → its function."""
        self.figures: dict[str, int] = {}
        """What else was counted, by what it is."""
        self.complaints: list[str] = []
        """What did not go as the scenario has it."""
        self.disturbances = 0

    def _load(self) -> ModuleType:
        """The module with the tasks, as a producer imports it: anew for each trial."""
        spec = importlib.util.spec_from_file_location("work", PROGRAMS / "work.py")
        module = importlib.util.module_from_spec(spec)
        with patch.dict(os.environ, FAULTS=json.dumps(self.setting)):
            spec.loader.exec_module(module)
        return module

    # Asking for work -------------------------------------------------------------------------------------------------

    def mix(self, count: int) -> list[Task]:
        """Tasks of every kind, not enqueued yet."""
        return self.work.mix(self.chance, count)

    def enqueue(self, tasks: Iterable[Task], queue: TaskQueue | None = None, *, most: int = 20) -> None:
        """Enqueue tasks, some together; as often as it takes, if the store is away or its answer was lost."""
        queue, rest = queue or self.queue, list(tasks)
        while rest:
            size = self.chance.randint(1, most)
            some, rest = rest[:size], rest[size:]
            started = time.monotonic()
            while some:
                try:
                    queue.enqueue_many(some)
                except DuplicateTask as taken:  # it was there: its answer had been lost
                    self.wanted[taken.task_id] = self._named(some, taken.task_id)
                    some = [task for task in some if task.id != taken.task_id]
                except StorageUnavailable:
                    self.count("enqueued again")
                    if time.monotonic() > started + STUCK:
                        raise
                    pause(LOOK)
                else:
                    self.wanted |= {task.id: task.name for task in some}
                    some = []

    def _named(self, tasks: list[Task], task_id: str) -> str:
        return next(task.name for task in tasks if task.id == task_id)

    def crowd(self) -> list[str]:
        """The kinds of the consumers that there are to be: in turn, one of each at the least."""
        kinds = self.options.kinds
        return [kinds[number % len(kinds)] for number in range(max(self.options.consumers, len(kinds)))]

    # Looking on ------------------------------------------------------------------------------------------------------

    def lines(self) -> list[Line]:
        """What the bodies have noted until now."""
        return read(self.journal)

    def begun(self) -> int:
        """About how many bodies have begun until now."""
        return self.journal.read_bytes().count(b"begin\t")

    def count(self, what: str, number: int = 1) -> None:
        """Add to a figure."""
        self.figures[what] = self.figures.get(what, 0) + number

    def complain(self, what: str) -> None:
        """The scenario does not go as it should."""
        self.complaints.append(what)

    def moving(self) -> int:
        """How many tasks are not at rest; raises `StorageError`."""
        return sum(count for state, count in self.queue.storage.counts().items() if state in RESTLESS)

    def settle(self, look: Callable[[], None] = lambda: None, patience: float = STUCK) -> None:
        """Wait until all tasks are at rest, and `look` on meanwhile."""
        progress, seen = time.monotonic(), None
        while True:
            look()
            try:
                generation = self.queue.storage.generation(Channel.OUTCOME)
                counts = self.queue.storage.counts()
                left = sum(count for state, count in counts.items() if state in RESTLESS)
                if not left:
                    return
                self.queue.storage.wait(Channel.OUTCOME, generation, LOOK)
                pause(LOOK / 4)  # while a lot happens, there is no need to look at each
            except StorageError:
                pause(LOOK)
                continue
            if (now := (counts, self.journal.stat().st_size)) != seen:
                progress, seen = time.monotonic(), now
            elif time.monotonic() > progress + patience:
                self.complain(f"{left} tasks have not come to rest: {counts}")
                return

    # The end ---------------------------------------------------------------------------------------------------------

    def audit(self) -> Audit:
        """What has become of all that was enqueued."""
        store = self.queue.storage
        found, last = [], None
        while page := store.tasks(limit=PAGE, before=last):
            for task in page:
                history = store.history(task.id) or []
                found.append(Found(task.id, task.name, str(task.state), task.version, task.lease is not None, history))
            last = page[-1].seq
            if last is None or len(page) < PAGE:
                break
        rests = {f"work.{name}": frozenset(states) for name, states in self.work.RESTS.items()}
        locks = [lock.name for lock in store.locks(self.queue.engine.clock.now())]
        result = audit(self.wanted, found, self.lines(), rests, locks)
        if refused := self.crew.said(*REFUSED):
            self.figures["outcomes refused"] = refused
        if refused > result.interruptions:
            reason = f"{refused} outcomes were refused, though only {result.interruptions} attempts were interrupted"
            result.wrong["scenario"].append(reason)
        result.wrong["scenario"] += self.complaints + self.crew.tracebacks()
        return result

    def close(self) -> None:
        """Send everybody home."""
        self.gate.touch()
        self.crew.close()
        self.queue.close()


def read(journal: Path) -> list[Line]:
    """The lines of a file that bodies have written; what is only being written is no line yet."""
    lines, text = [], journal.read_text()
    for line in text[: text.rfind("\n") + 1].splitlines():
        what, task, attempt, member, pid, at = line.split("\t")
        lines.append(Line(what, task, int(attempt), int(member), int(pid), float(at)))
    return lines


@contextmanager
def on_trial(place: Place, folder: Path, options: Options, **queue: object) -> Iterator[Trial]:
    """A trial, and nothing of it afterwards but what was counted."""
    trial = Trial(place, folder, options, **queue)
    try:
        yield trial
    finally:
        trial.close()
