"""The rules of the table that a store can break, checked against what the store itself returns."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from lifecycle.core.table import LIFECYCLE, Kind
from lifecycle.core.task import Record, Task, numbered
from lifecycle.testing.storage_spec.reference_storage import fields
from lifecycle.testing.storage_spec.workflow_invariants import WorkflowChecker

__all__ = ["InvariantChecker", "require"]

_EDGES: Final = {(row.source and row.source.name, row.target.name): row.trigger for row in LIFECYCLE.transitions}


def require(holds: bool, fault: str) -> None:
    """Raise `AssertionError` unless `holds`; unlike ``assert``, under ``python -O``, too."""
    if not holds:
        raise AssertionError(fault)


@attrs.frozen
class _ShownTask:
    """A task as the store returned it last."""

    id: str
    shown: tuple[object, ...] = ()
    history: tuple[Record, ...] = ()


@attrs.define
class InvariantChecker:
    """Checks the invariants of every store, without the model. Methods raise `AssertionError`.

    Tasks are identified by the model's `seq`, since an id may be used again.
    """

    transition_counts: Counter[tuple[str | None, str, str]]
    """(source, trigger, target) → number of times a task took that transition."""
    _shown: dict[int, _ShownTask] = attrs.field(factory=dict)
    _claimed: set[tuple[int, int]] = attrs.field(factory=set)
    _settled: set[tuple[int, int]] = attrs.field(factory=set)
    _workflows: WorkflowChecker = attrs.field(factory=WorkflowChecker)

    def check_claim(self, model_seq: int, version: int) -> None:
        """Check that this version of a task was claimed by one worker only (P1)."""
        require((model_seq, version) not in self._claimed, f"version {version} of a task was given to two workers")
        self._claimed.add((model_seq, version))

    def check_settlement(self, model_seq: int, version: int) -> None:
        """Check that one outcome only was accepted for this version of a task (P1)."""
        require(
            (model_seq, version) not in self._settled, f"two outcomes were accepted for version {version} of a task"
        )
        self._settled.add((model_seq, version))

    def check_shown(self, shown: Mapping[int, tuple[Task, Sequence[Record]]], *, deletion: bool) -> None:
        """Check all stored tasks, by the model's `seq`; `deletion`: the last step may have deleted tasks."""
        before, self._shown = self._shown, {}
        for model_seq, seen in before.items():  # P4
            require(deletion or model_seq in shown, f"task {seen.id} is gone")
        for model_seq, (task, history) in shown.items():
            seen = before.get(model_seq) or _ShownTask(task.id)
            now = self._shown[model_seq] = _ShownTask(task.id, fields(task), tuple(history))
            if now != seen:
                self._check_change(task, seen.history, now.history)
        faults = self._workflows.faults(shown)
        require(not faults, "; ".join(faults))

    def _check_change(self, task: Task, known: tuple[Record, ...], history: tuple[Record, ...]) -> None:
        records, before = dict(numbered(history)), dict(numbered(known))
        kept = all(_is_same(record, records.get(number)) for number, record in before.items())
        require(kept, f"{task}: its history has changed")
        last = known[-1].state if known else None
        require(
            last is None or LIFECYCLE.state(last).kind is not Kind.FINAL,
            f"{task}: {last} is final, but the task has left it",
        )  # P6
        new = [record.state for number, record in records.items() if number > max(before, default=0)]
        for source, target in itertools.pairwise((last, *new)):  # P2
            trigger = _EDGES.get((source, str(target)))
            if trigger is None:
                raise AssertionError(f"{task}: from {source or 'nowhere'} to {target} is no transition of the table")
            self.transition_counts[source, trigger, str(target)] += 1
        last, count = history[-1].state if history else None, max(records, default=0)
        require(  # P3
            (last, count) == (task.state, task.version),
            f"{task}: {count} lines of history up to {last}, but it is {task.state}, version {task.version}",
        )


def _is_same(record: Record, now: Record | None) -> bool:
    """Return whether a record is as it was, or is left out now."""
    return now is None or attrs.evolve(now, left_out=0) == attrs.evolve(record, left_out=0)
