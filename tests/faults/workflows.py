"""Scenario: random pipelines, groups and chords run while consumers are killed again and again."""

import attrs
from faults.storm import Storm
from faults.trial import Trial

from lifecycle.core.nodes import Group, Node
from lifecycle.core.table import COMPLETED, ERROR, SKIPPED

__all__ = ["workflows"]

DEPTH = 3
"""How deep nodes are nested."""
WIDTH = 5
"""Largest number of parts of a node."""
FAILED = object()
"""Outcome of a node that does not complete."""
FUNCTIONS = {"plus": 76, "shaky_plus": 20, "no_plus": 4}
"""Functions of steps, each with its share."""


@attrs.frozen
class Expected:
    """How a task ends."""

    name: str
    state: str
    value: object = None


class Forest:
    """Random workflows, and how each of their tasks ends."""

    def __init__(self, trial: Trial) -> None:
        self._work, self._rng = trial.work, trial.rng
        self.expected: dict[str, Expected] = {}
        """Id of each task → its end."""

    def grow(self) -> Node:
        """Make a workflow with an error callback."""
        node, outcome = self._node(DEPTH, 0)
        callback = self._work.told.s()
        state, value = (COMPLETED, "ValueError") if outcome is FAILED else (SKIPPED, None)
        self.expected[callback.id] = Expected(callback.name, state.name, value)
        return node.error(callback)

    def _node(self, depth: int, before: object) -> tuple[Node, object]:
        """Make a node with so many levels; return it with its outcome. `before`: outcome of the node before."""
        kind = self._rng.choice(["task", "pipeline", "group"]) if depth else "task"
        if kind == "task":
            return self._task(before)
        count = self._rng.randint(1, WIDTH)
        if kind == "group":
            members = [self._node(depth - 1, before) for _ in range(count)]
            outcomes = [outcome for _, outcome in members]
            return Group([node for node, _ in members]), FAILED if FAILED in outcomes else outcomes
        node, outcome = self._node(depth - 1, before)
        for _ in range(count - 1):
            step, outcome = self._node(depth - 1, outcome)
            node = node | step
        return node, outcome

    def _task(self, before: object) -> tuple[Node, object]:
        (name,) = self._rng.choices(list(FUNCTIONS), list(FUNCTIONS.values()))
        more = self._rng.randrange(1000)
        task = getattr(self._work, name).s(more)
        if before is FAILED:
            state, value = SKIPPED, FAILED
        elif name == "no_plus":
            state, value = ERROR, FAILED
        else:
            state, value = COMPLETED, more + self._work.flat(before)
        self.expected[task.id] = Expected(task.name, state.name, value)
        return task, value


def workflows(trial: Trial) -> None:
    """Run many workflows, and kill consumers at any moment; then compare the end of each task with a pure evaluation."""
    forest, kills = Forest(trial), Storm(trial, [])
    while sum(one.state != SKIPPED for one in forest.expected.values()) < trial.options.tasks:
        node = forest.grow()
        trial.queue.enqueue(node)
        kills.look()
    trial.wanted |= {task_id: one.name for task_id, one in forest.expected.items()}
    trial.settle(kills.look)
    if not kills.over:
        trial.add_problem(f"only {trial.disturbances} of {trial.options.kills} kills could be made")
    for task_id, one in forest.expected.items():
        found = _found(trial, task_id)
        if found != (one.state, one.value if one.state == COMPLETED else None):
            trial.add_problem(f"task {task_id} ({one.name}) ends with {found}, not with {one.state}, {one.value}")
    trial.figures["steps"] = len(forest.expected)
    trial.figures["skipped"] = sum(one.state == SKIPPED for one in forest.expected.values())
    trial.problems += trial.consumers.drain()


def _found(trial: Trial, task_id: str) -> tuple[str, object]:
    state = str(trial.queue.get(task_id).state)
    return state, trial.queue.result(task_id) if state == COMPLETED else None
