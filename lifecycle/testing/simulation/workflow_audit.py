"""An audit of workflows: which verdict each waiting task must get, derived from all calls of a world's store."""

from collections.abc import Callable, Sequence
from typing import Any

import attrs

from lifecycle.core.policies import Move
from lifecycle.core.step import Step, Verdict
from lifecycle.core.table import COMPLETED, ENQUEUE, PENDING, SCHEDULE, SKIP
from lifecycle.core.task import Task
from lifecycle.storage.base import Claim, Storage

__all__ = ["WorkflowAudit"]


@attrs.define
class _Waiting:
    """A task that waits for others, as it was enqueued."""

    step: Step
    missing: set[str]
    """Ids of the tasks before it that have not completed."""
    verdict: Verdict | None = None
    """The verdict that the ends so far lead to."""
    left: bool = False
    """True once a claim has moved the task."""


class WorkflowAudit:
    """Checks a store against the ends that it has accepted: each waiting task moves as these say, and only then."""

    def __init__(self, add_fault: Callable[[str], object]) -> None:
        """`add_fault`: called with the text of each fault."""
        self._add_fault = add_fault
        self._waiting: dict[str, _Waiting] = {}
        self._dependents: dict[str, tuple[str, ...]] = {}

    def note(self, call: str, arguments: Sequence[Any], answer: Any) -> None:
        """Note a call of the store and its answer."""
        if call == Storage.enqueue.__name__:
            for task in arguments[0]:
                self._note_new(task)
        elif call == Storage.exchange.__name__:
            accepted, claims = answer
            for (task, move), is_accepted in zip(arguments[0], accepted, strict=True):
                if is_accepted:
                    self._note_end(task, move, task.id)
            self._note_claims(claims)
        elif call == Storage.recover.__name__:
            self._note_claims(answer)

    def _note_new(self, task: Task) -> None:
        if task.step is not None:
            self._dependents[task.id] = task.step.dependents
            if task.step.awaits:
                self._waiting[task.id] = _Waiting(task.step, set(task.step.prerequisites))

    def _note_claims(self, claims: Sequence[Claim]) -> None:
        for task, move in claims:
            cause, waiting = task.id, self._waiting.get(task.id)
            if task.state == PENDING and waiting is not None:
                self._check_claim(task, move, waiting)
                if waiting.verdict is not None and waiting.verdict.trigger == SKIP:
                    cause = waiting.verdict.cause
            self._note_end(task, move, cause)

    def _check_claim(self, task: Task, move: Move, waiting: _Waiting) -> None:
        trigger = None if waiting.verdict is None else waiting.verdict.trigger
        if waiting.left:
            self._add_fault(f"{task} has left its place in the workflow twice")
        waiting.left = True
        wanted = {ENQUEUE: ENQUEUE, SCHEDULE: ENQUEUE, SKIP: SKIP}.get(move.path[0], trigger)
        if trigger != wanted:
            self._add_fault(f"{task} was moved along {move.path}, but its verdict must be {waiting.verdict}")
        known = None if task.step is None else task.step.verdict
        if known != waiting.verdict:
            self._add_fault(f"{task} has the verdict {known}, but its verdict must be {waiting.verdict}")

    def _note_end(self, task: Task, move: Move, cause: str) -> None:
        """Note the end of a task, if the move is one: the first failure decides, or the last completion."""
        if move.ended is None:
            return
        completed = move.state == COMPLETED
        for dependent in self._dependents.get(task.id, ()):
            waiting = self._waiting[dependent]
            if completed:
                waiting.missing.discard(task.id)
            if waiting.verdict is None and not waiting.left and not (completed and waiting.missing):
                trigger = SKIP if completed == waiting.step.on_failure else ENQUEUE
                waiting.verdict = Verdict(trigger, cause, move.ended)

    def finish(self) -> None:
        """Check that no task waits any more."""
        for task_id, waiting in self._waiting.items():
            if not waiting.left:
                self._add_fault(f"task {task_id} waits for ever; its verdict must be {waiting.verdict}")
