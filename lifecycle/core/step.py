"""Steps of workflows: how a task depends on other tasks, and what the end of one means for those after it.

A task that waits for others is born `pending`. A prerequisite reports once, in the transaction that brings it to rest:
`complete` is final, and the first report of any other end decides. The store keeps the number of reports that are
missing, and the verdict. A claim applies the verdict: it enqueues the task, or skips it.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import attrs
import msgspec

from lifecycle.core.table import COMPLETED, ENQUEUE, SKIP, State

__all__ = [
    "Inputs",
    "Report",
    "Step",
    "Verdict",
    "decided",
    "input_ids",
    "reports",
    "step_from",
    "step_of",
    "step_text",
    "step_values",
    "verdict_text",
]

Inputs = str | list["Inputs"] | None
"""Ids of the tasks whose results a task gets: the id of one, or a list of inputs, as deep as groups are nested."""


class Verdict(NamedTuple):
    """Decision about a task that waited for others."""

    trigger: str
    """`enqueue` or `skip`."""
    cause: str
    """Id of the task whose end has decided: the last one that completed, or the one that did not complete."""
    at: float
    """The moment of that end (UTC seconds)."""


@attrs.frozen
class Step:
    """The place of a task in a workflow."""

    inputs: Inputs = None
    """The tasks whose results are passed to this one; ``None``: nothing is passed."""
    awaits: int = 0
    """Number of tasks that this one waits for."""
    dependents: tuple[str, ...] = ()
    """Ids of the tasks that wait for this one."""
    on_failure: bool = False
    """True for an error callback: the task runs if a task before it does not complete, and is skipped otherwise."""
    verdict: Verdict | None = None
    """``None``: not decided."""
    after: tuple[str, ...] = ()
    """Ids of tasks that this one waits for, as far as they are not in `inputs`."""

    @property
    def prerequisites(self) -> list[str]:
        """Ids of the tasks that this one waits for: those of `inputs`, and those of `after`."""
        return [*input_ids(self.inputs), *self.after]


class Report(NamedTuple):
    """The end of a task, as a task that waits for it hears of it."""

    dependent: str
    """Id of the waiting task."""
    cause: str
    """Id of the task that ended; after a skipped task, of the task because of which it was skipped."""
    completed: bool
    at: float
    """UTC seconds."""


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.decode


def reports(task_id: str, step: Step | None, state: State, ended: float | None) -> list[Report]:
    """Return the reports of a move: one for each task that waits for this one, if the move brings the task to rest.

    `state` and `ended`: as after the move.
    """
    if step is None or ended is None or not step.dependents:
        return []
    skipped = step.verdict is not None and step.verdict.trigger == SKIP
    cause = step.verdict.cause if skipped and step.verdict is not None else task_id
    return [Report(dependent, cause, state == COMPLETED, ended) for dependent in step.dependents]


def decided(step: Step, report: Report) -> Step:
    """Return the step of a waiting task with its verdict, after its last report, or its first of a failure."""
    trigger = SKIP if report.completed == step.on_failure else ENQUEUE
    return attrs.evolve(step, verdict=Verdict(trigger, report.cause, report.at))


def input_ids(inputs: Inputs) -> list[str]:
    """Return the ids in a tree of inputs, in their order."""
    found: list[str] = []
    todo = [inputs]
    while todo:
        one = todo.pop()
        if isinstance(one, str):
            found.append(one)
        elif one is not None:
            todo.extend(reversed(one))
    return found


def step_values(step: Step) -> tuple[Inputs, int, tuple[str, ...], bool, tuple[str, ...]]:
    """Return the values of a step that a store keeps, without its verdict."""
    return step.inputs, step.awaits, step.dependents, step.on_failure, step.after


def step_text(step: Step) -> str:
    """Return a step as stored text, without its verdict."""
    return _encode(step_values(step)).decode()


def verdict_text(verdict: Verdict) -> str:
    """Return a verdict as stored text."""
    return f"{verdict.trigger} {verdict.at!r} {verdict.cause}"


def step_from(text: str, verdict: str | None) -> Step:
    """Return a step from its stored texts; `verdict`: ``None`` if nothing is decided. Raises `ValueError`."""
    return step_of(_decode(text), verdict)


def step_of(values: Iterable[Any], verdict: str | None) -> Step:
    """Return a step from its stored values and the text of its verdict; ``None``: nothing is decided.

    Raises `ValueError`.
    """
    inputs, awaits, dependents, on_failure, after = values
    decision = None
    if verdict is not None:
        trigger, at, cause = verdict.split(" ", 2)
        decision = Verdict(trigger, cause, float(at))
    return Step(inputs, awaits, tuple(dependents), on_failure, decision, tuple(after))
