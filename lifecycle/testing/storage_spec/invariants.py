"""The law as a store can break it, read off what the store itself shows."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from lifecycle.core.table import LIFECYCLE, Kind
from lifecycle.core.task import Record, Task
from lifecycle.testing.storage_spec.reference_storage import fields

__all__ = ["Invariants", "demand"]

_EDGES: Final = {(row.source and row.source.name, row.target.name): row.trigger for row in LIFECYCLE.transitions}


def demand(holds: bool, fault: str) -> None:
    """Assert, in a module that is no test, where ``python -O`` changes nothing."""
    if not holds:
        raise AssertionError(fault)


@attrs.frozen
class _Seen:
    """What a store showed of a task."""

    id: str
    shown: tuple[object, ...] = ()
    history: tuple[Record, ...] = ()


@attrs.define
class Invariants:
    """What no store may break, whatever it is asked: checked without the model's help. Raises `AssertionError`.

    Tasks are told apart by their birth, since an id may be used again.
    """

    taken: Counter[tuple[str | None, str, str]]
    """(source, trigger, target) → how often a task was seen to go that way."""
    _seen: dict[int, _Seen] = attrs.field(factory=dict)
    _grants: set[tuple[int, int]] = attrs.field(factory=set)
    _verdicts: set[tuple[int, int]] = attrs.field(factory=set)

    def grant(self, birth: int, version: int) -> None:
        """A worker got a task, in that version: nobody else did (P1)."""
        demand((birth, version) not in self._grants, f"version {version} of a task was given to two workers")
        self._grants.add((birth, version))

    def settle(self, birth: int, version: int) -> None:
        """An outcome was accepted from somebody who knew that version: none was before (P1)."""
        demand((birth, version) not in self._verdicts, f"two outcomes were accepted for version {version} of a task")
        self._verdicts.add((birth, version))

    def look(self, shown: Mapping[int, tuple[Task, Sequence[Record]]], *, emptied: bool) -> None:
        """The store shows these tasks now, by birth; `emptied`: it was told to delete some."""
        before, self._seen = self._seen, {}
        for birth, seen in before.items():  # P4
            demand(emptied or birth in shown, f"task {seen.id} is gone")
        for birth, (task, history) in shown.items():
            seen = before.get(birth) or _Seen(task.id)
            now = self._seen[birth] = _Seen(task.id, fields(task), tuple(history))
            if now != seen:
                self._step(task, seen.history, now.history)

    def _step(self, task: Task, known: tuple[Record, ...], history: tuple[Record, ...]) -> None:
        demand(history[: len(known)] == known, f"{task}: its history was rewritten")
        last = known[-1].state if known else None
        demand(
            last is None or LIFECYCLE.state(last).kind is not Kind.FINAL, f"{task}: {last} is final, and was left"
        )  # P6
        for source, target in itertools.pairwise((last, *(record.state for record in history[len(known) :]))):  # P2
            trigger = _EDGES.get((source, str(target)))
            if trigger is None:
                raise AssertionError(f"{task}: from {source or 'nowhere'} to {target} is no row of the table")
            self.taken[source, trigger, str(target)] += 1
        last = history[-1].state if history else None
        demand(  # P3
            (last, len(history)) == (task.state, task.version),
            f"{task}: {len(history)} lines of history up to {last}, but it is {task.state}, version {task.version}",
        )
