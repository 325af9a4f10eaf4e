"""The rules of workflows that a store can break, checked against what the store itself returns."""

from collections.abc import Iterator, Mapping, Sequence

import attrs

from lifecycle.core.step import Step, Verdict
from lifecycle.core.table import COMPLETED, ENQUEUE, LIFECYCLE, PENDING, SKIP, SKIPPED, Kind
from lifecycle.core.task import Record, Task

__all__ = ["WorkflowChecker"]


@attrs.frozen
class _End:
    """An end of a task."""

    completed: bool
    cause: str
    """Id of the task; of a skipped task, the id of the task because of which it was skipped."""
    at: float


@attrs.define
class WorkflowChecker:
    """Checks the verdicts of a store against the ends that it shows. Tasks are identified by the model's `seq`."""

    _ends: dict[int, dict[int, _End]] = attrs.field(factory=dict)
    """`seq` → version → the end of the task at this version. Deleted tasks are remembered."""
    _prerequisites: dict[int, list[int]] = attrs.field(factory=dict)
    """`seq` of a waiting task → those of the tasks that it waits for: an id may be used again."""
    _verdicts: dict[int, Verdict] = attrs.field(factory=dict)

    def faults(self, shown: Mapping[int, tuple[Task, Sequence[Record]]]) -> list[str]:
        """Return the rules that the shown tasks break: one text for each."""
        for model_seq, (task, history) in shown.items():
            if LIFECYCLE.state(str(task.state)).kind in (Kind.OUTCOME, Kind.FINAL):
                self._ends.setdefault(model_seq, {})[task.version] = _end(task, history[-1].at)
        seqs = {task.id: model_seq for model_seq, (task, _) in shown.items()}
        found = []
        for model_seq, (task, history) in shown.items():
            step = task.step
            if step is None or not step.awaits:
                continue
            if model_seq not in self._prerequisites:  # it is new: all are stored together
                self._prerequisites[model_seq] = [seqs[one] for one in step.prerequisites]
            ends = [list(self._ends.get(one, {}).values()) for one in self._prerequisites[model_seq]]
            states = [record.state for record in history]
            faults = (*self._changed(model_seq, step), *_unjustified(step, ends), *_disobeyed(step, states, ends))
            found += [f"{task}: {fault}" for fault in faults]
        return found

    def _changed(self, model_seq: int, step: Step) -> Iterator[str]:
        known = self._verdicts.get(model_seq)
        if known is not None and step.verdict != known:
            yield f"its verdict was {known}, and is {step.verdict} now"
        if step.verdict is not None:
            self._verdicts[model_seq] = step.verdict


def _end(task: Task, at: float) -> _End:
    verdict = None if task.step is None else task.step.verdict
    is_skipped = verdict is not None and verdict.trigger == SKIP
    return _End(task.state == COMPLETED, verdict.cause if verdict is not None and is_skipped else task.id, at)


def _unjustified(step: Step, ends: Sequence[Sequence[_End]]) -> Iterator[str]:
    """Yield a fault if the ends of the prerequisites do not justify the verdict."""
    if step.verdict is None:
        return
    complete = (step.verdict.trigger == ENQUEUE) != step.on_failure
    all_complete = all(any(end.completed for end in one) for one in ends)
    causes = [(end.cause, end.at) for one in ends for end in one if end.completed == complete]
    if (complete and not all_complete) or (step.verdict.cause, step.verdict.at) not in causes:
        yield f"its verdict is {step.verdict}, but the ends of the tasks before it are {ends}"


def _disobeyed(step: Step, states: Sequence[str], ends: Sequence[Sequence[_End]]) -> Iterator[str]:
    """Yield a fault if the task has taken another way than its verdict says, or has no verdict in spite of the ends."""
    trigger = None if step.verdict is None else step.verdict.trigger
    first = states[1] if len(states) > 1 else None
    goes_on = first is not None and LIFECYCLE.state(first).kind is Kind.WAITING
    if states[0] != PENDING or (goes_on and trigger != ENQUEUE) or (first == SKIPPED and trigger != SKIP):
        yield f"with the verdict {trigger} it went to {first or states[0]}"
    if first is None and trigger is None:
        all_complete = all(any(end.completed for end in one) for one in ends)
        if all_complete or any(not end.completed for one in ends for end in one):
            yield f"it has no verdict, but the ends of the tasks before it are {ends}"
