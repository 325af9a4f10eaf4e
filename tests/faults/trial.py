"""Trial: one scenario on one store, with its queue, its consumers, its tasks and its audit."""

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
from faults.audit import BEGIN, Audit, Found, Line, audit
from faults.consumer_processes import PROGRAMS, REFUSED, Consumers
from faults.places import Place
from support.processes import until

from lifecycle import DuplicateTask, StorageError, StorageUnavailable, Task, TaskQueue
from lifecycle.core.table import LIFECYCLE, Kind
from lifecycle.storage.base import Channel

__all__ = ["LOOK", "Options", "Trial", "open_trial", "pause"]

RESTLESS = {state.name for state in LIFECYCLE.of_kind(Kind.WAITING, Kind.RUNNING)}
STUCK = 60.0
"""Seconds without progress after which unfinished tasks count as lost."""
LOOK = 0.1
"""Seconds between two looks at the progress of a trial."""
PAGE = 500


def pause(seconds: float) -> None:
    """Wait while the processes run."""
    time.sleep(seconds)


@attrs.frozen
class Options:
    """Sizes of a trial."""

    tasks: int = 1000
    kills: int = 5
    """Count of kills, or freezes, restarts, cuts."""
    seed: int = 0
    kinds: tuple[str, ...] = ("thread",)
    """Worker types of the consumers, in turn."""
    consumers: int = 3
    workers: int = 4
    interruptions: int = 3
    """Count of allowed interruptions, in scenarios with few."""


class Trial:
    """Queue of a trial, its consumers, and its producer: this process."""

    def __init__(self, place: Place, folder: Path, options: Options, *, lease: float, **queue: object) -> None:
        """`lease` and further options: of the queue."""
        self.place, self.folder, self.options = place, folder, options
        self.rng = random.Random(options.seed)
        self.release_file, self.journal = folder / "release", folder / "journal"
        self.lease = lease
        self.setting: dict[str, object] = {
            "url": place.url,
            "queue": {"name": f"faults-{options.seed}-{os.getpid()}", "lease": lease, **queue},
            "journal": str(self.journal),
            "release_file": str(self.release_file),
        }
        self.consumers = Consumers(folder, self.setting)
        self.work = self._load()
        self.queue: TaskQueue = self.work.queue
        self.wanted: dict[str, str] = {}
        """Id of each task whose enqueuing was confirmed → its function."""
        self.figures: dict[str, int] = {}
        """Further counts, by their names."""
        self.problems: list[str] = []
        """Deviations from the scenario, each a sentence."""
        self.disturbances = 0
        self.gone: set[str] = set()
        """Ids of tasks whose store was removed with them: the audit knows nothing of them."""

    def _load(self) -> ModuleType:
        """Import the module with the tasks as a producer does; each trial has a module of its own."""
        spec = importlib.util.spec_from_file_location("work", PROGRAMS / "work.py")
        module = importlib.util.module_from_spec(spec)
        with patch.dict(os.environ, FAULTS=json.dumps(self.setting)):
            spec.loader.exec_module(module)
        return module

    # Enqueue ---------------------------------------------------------------------------------------------------------

    def mix(self, count: int) -> list[Task]:
        """Make `count` tasks of every kind, not enqueued yet."""
        return self.work.mix(self.rng, count)

    def enqueue(self, tasks: Iterable[Task], queue: TaskQueue | None = None, *, most: int = 20) -> None:
        """Enqueue tasks in random batches; repeat a batch if the store is unavailable or its answer was lost."""
        queue, rest = queue or self.queue, list(tasks)
        while rest:
            size = self.rng.randint(1, most)
            some, rest = rest[:size], rest[size:]
            started = time.monotonic()
            while some:
                try:
                    queue.enqueue_many(some)
                except DuplicateTask as taken:  # it is in the store: the answer was lost
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

    def consumer_kinds(self) -> list[str]:
        """Return the worker types of the consumers, in turn, at least one of each."""
        kinds = self.options.kinds
        return [kinds[number % len(kinds)] for number in range(max(self.options.consumers, len(kinds)))]

    # Progress --------------------------------------------------------------------------------------------------------

    def lines(self) -> list[Line]:
        """Return the journal until now."""
        return read(self.journal)

    def begun(self) -> int:
        """Return about how many functions have begun until now."""
        return self.journal.read_bytes().count(b"begin\t")

    def count(self, what: str, number: int = 1) -> None:
        """Add to a figure."""
        self.figures[what] = self.figures.get(what, 0) + number

    def add_problem(self, what: str) -> None:
        """Add a deviation from the scenario."""
        self.problems.append(what)

    def moving(self) -> int:
        """Return how many tasks are not at rest. Raises `StorageError`."""
        return sum(count for state, count in self.queue.storage.counts().items() if state in RESTLESS)

    def settle(self, look: Callable[[], None] = lambda: None, patience: float = STUCK) -> None:
        """Wait until all tasks are at rest, and call `look` meanwhile."""
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
                pause(LOOK / 4)  # while many tasks end: not at each of them
            except StorageError:
                pause(LOOK)
                continue
            if (now := (counts, self.journal.stat().st_size)) != seen:
                progress, seen = time.monotonic(), now
            elif time.monotonic() > progress + patience:
                self.add_problem(f"{left} tasks have not come to rest: {counts}")
                return

    def begin_lingering(self, queue: TaskQueue | None = None) -> list[str]:
        """Enqueue tasks that wait for the release file, one for each slot of all consumers; return their begun ids."""
        self.release_file.unlink(missing_ok=True)
        tasks = [self.work.linger.s() for _ in range(self.options.workers * len(self.consumers.alive))]
        self.enqueue(tasks, queue)
        ids = {task.id for task in tasks}
        until(
            lambda: ids <= {line.task for line in self.lines() if line.what == BEGIN}, "the begin of the waiting tasks"
        )
        return sorted(ids)

    # The end ---------------------------------------------------------------------------------------------------------

    def audit(self) -> Audit:
        """Audit all enqueued tasks."""
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
        lines = [line for line in self.lines() if line.task not in self.gone]
        result = audit(self.wanted, found, lines, rests, locks)
        if refused := self.consumers.count_in_log(*REFUSED):
            self.figures["outcomes refused"] = refused
        if refused > result.interruptions:
            reason = f"{refused} outcomes were refused, though only {result.interruptions} attempts were interrupted"
            result.wrong["scenario"].append(reason)
        result.wrong["scenario"] += self.problems + self.consumers.tracebacks()
        return result

    def close(self) -> None:
        """Kill the consumers, and close the queue."""
        self.release_file.touch()
        self.consumers.close()
        self.queue.close()


def read(journal: Path) -> list[Line]:
    """Read the complete lines of a journal."""
    lines, text = [], journal.read_text()
    for line in text[: text.rfind("\n") + 1].splitlines():
        what, task, attempt, member, pid, at = line.split("\t")
        lines.append(Line(what, task, int(attempt), int(member), int(pid), float(at)))
    return lines


@contextmanager
def open_trial(place: Place, folder: Path, options: Options, **queue: object) -> Iterator[Trial]:
    """Open a trial; in the end kill its consumers and close its queue."""
    trial = Trial(place, folder, options, **queue)
    try:
        yield trial
    finally:
        trial.close()
