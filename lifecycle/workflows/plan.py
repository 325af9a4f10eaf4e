"""The plan of a workflow: its nodes become tasks with steps, in an order in which a task comes after all before it.

Each node is given its `Before`: a tree of the tasks whose values the node gets, and the tasks that the node waits for
(the *tails*). Each node returns the `Before` of the node after it.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from lifecycle.core.nodes import Chord, Group, Node, Pipeline
from lifecycle.core.step import Inputs, Step
from lifecycle.core.task import Task
from lifecycle.errors import ConfigurationError

__all__ = ["EDGE_LIMIT", "Before", "Planned", "plan"]

EDGE_LIMIT: Final = 1_000_000
"""Largest number of pairs of a task and a task that waits for it, in one workflow."""
DEPTH_LIMIT: Final = 100
"""How deep nodes may be nested."""


class Before(NamedTuple):
    """The tasks before a node."""

    inputs: Inputs
    """The tasks whose values the node gets."""
    tails: tuple[Task, ...]
    """The tasks that the node waits for."""
    on_failure: bool = False
    """True: the node is an error callback of the tails."""
    values_of: Task | None = None
    """The task whose value is passed on, if it is the value of one task."""


class Planned(NamedTuple):
    """The tasks of a node."""

    node: Node
    tasks: list[Task]
    """In an order in which a task comes after all before it; error callbacks are left out."""
    callbacks: list[Task]
    """The tasks of error callbacks."""
    parts: "list[Planned]"
    """The parts of the node, in their order; none for a task."""


def plan(node: Node, check: Callable[[Task, Before, str], object]) -> Planned:
    """Return the tasks of a workflow, and set the step of each.

    Raises `ConfigurationError` for a workflow with too many edges, or that is nested too deep.

    :param check: called with each task, its `Before`, and a text that says where the task stands.
    """
    planner = _Planner(check)
    planned, _ = planner.add(node, Before(None, ()), "", 0)
    for task, inputs, tails, on_failure in planner.steps:
        dependents = tuple(planner.dependents.get(task.id, ()))
        step = Step(inputs, len(tails), dependents, on_failure)
        task.step = None if step == _ALONE else step
    return planned


_ALONE: Final = Step()


class _Planner:
    """Collects the steps of one workflow."""

    def __init__(self, check: Callable[[Task, Before, str], object]) -> None:
        self._check = check
        self._edges = 0
        self.steps: list[tuple[Task, Inputs, tuple[Task, ...], bool]] = []
        self.dependents: dict[str, list[str]] = {}

    def add(self, node: Node, before: Before, where: str, depth: int) -> tuple[Planned, Before]:
        """Plan a node; return its tasks, and the `Before` of the node that follows."""
        if depth > DEPTH_LIMIT:
            raise ConfigurationError(f"{node}: nested deeper than {DEPTH_LIMIT} levels; make the workflow flatter")
        if isinstance(node, Task):
            planned, after = self._add_task(node, before, where)
        else:
            planned, after = self._add_parts(node, before, where, depth)
        place = node.place
        if place is not None and place.callbacks and after.tails:  # without a task before it, none can fail
            for number, callback in enumerate(place.callbacks, 1):
                at = f"error callback {number} of {where or node}"
                found, _ = self.add(callback, Before(None, after.tails, on_failure=True), at, depth + 1)
                planned.callbacks.extend(found.tasks + found.callbacks)
        return planned, after

    def _add_task(self, task: Task, before: Before, where: str) -> tuple[Planned, Before]:
        self._check(task, before, where)
        inputs = None if before.on_failure else before.inputs
        self.steps.append((task, inputs, before.tails, before.on_failure))
        self._edges += len(before.tails)
        if self._edges > EDGE_LIMIT:
            raise ConfigurationError(
                f"{task}: the workflow has more than {EDGE_LIMIT:,} pairs of a task and one that waits for it, as each "
                "member of a group waits for each member of a group before; put one task between the two groups"
            )
        for tail in before.tails:
            self.dependents.setdefault(tail.id, []).append(task.id)
        return Planned(task, [task], [], []), Before(task.id, (task,), values_of=task)

    def _add_parts(self, node: Node, before: Before, where: str, depth: int) -> tuple[Planned, Before]:
        if before.on_failure and isinstance(node, Group):
            raise ConfigurationError(f"{node}: an error callback begins with one task, not with a group")
        planned, afters, of = Planned(node, [], [], []), [], f" of {where}" if where else ""
        for number, part in enumerate(node.parts, 1):
            found, after = self.add(part, before, f"{_ROLES[type(node)]} {number}{of}", depth + 1)
            planned.parts.append(found)
            planned.tasks.extend(found.tasks)
            planned.callbacks.extend(found.callbacks)
            if isinstance(node, Group):
                afters.append(after)
            else:
                before = after
        if not isinstance(node, Group):
            return planned, before
        tails = {tail.id: tail for after in afters for tail in after.tails}
        # An empty group is complete as soon as all tasks before it are.
        return planned, Before([after.inputs for after in afters], tuple(tails.values()) if afters else before.tails)


_ROLES: Final[dict[type, str]] = {Pipeline: "step", Group: "member", Chord: "part"}
