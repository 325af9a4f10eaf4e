"""Content of a diagram of a workflow: its tasks, each with its state, and which waits for which."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import attrs

from lifecycle.core.step import Step
from lifecycle.core.table import LIFECYCLE, State
from lifecycle.core.task import Task
from lifecycle.diagrams.palette import shade

__all__ = ["TASK_LIMIT", "Link", "Node", "Workflow", "collect", "workflow"]

TASK_LIMIT: Final = 20_000
"""Largest number of tasks that are looked up for a diagram."""
FOLD_ABOVE: Final = 3
"""More tasks than this that are alike are one node."""
_NO_STEP: Final = Step()


@attrs.frozen
class Node:
    """Task of a workflow, or several tasks of one function that are in the same state and have the same place."""

    ids: tuple[str, ...]
    name: str
    """Name of the function."""
    state: State
    on_failure: bool
    """True for an error callback."""

    @property
    def shade(self) -> str:
        """Shade of the state: see `lifecycle.diagrams.palette`."""
        return shade(LIFECYCLE, self.state)

    @property
    def label(self) -> str:
        """Name of the function, with the number of tasks if there are several."""
        return self.name if len(self.ids) == 1 else f"{self.name} ({len(self.ids):,} tasks)"


@attrs.frozen
class Link:
    """One node waits for another: numbers of the nodes."""

    source: int
    target: int


@attrs.frozen
class Workflow:
    """Content of a diagram, in the order in which the tasks were enqueued."""

    title: str
    about: str
    """One or two sentences, for readers who cannot see the diagram."""
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]

    def is_on_failure(self, link: Link) -> bool:
        """Return whether the target of a link runs only if the source does not complete."""
        return self.nodes[link.target].on_failure

    @property
    def ranks(self) -> tuple[int, ...]:
        """For each node, the number of nodes on the longest way to it."""
        before: dict[int, list[int]] = {number: [] for number in range(len(self.nodes))}
        for link in self.links:
            before[link.target].append(link.source)
        found: dict[int, int] = {}
        todo = list(reversed(range(len(self.nodes))))
        while todo:
            number = todo[-1]
            missing = [source for source in before[number] if source not in found]
            if missing:
                todo += missing
            else:
                found[todo.pop()] = max((found[source] + 1 for source in before[number]), default=0)
        return tuple(found[number] for number in range(len(self.nodes)))


def collect(task_ids: Iterable[str], get: Callable[[str], Task | None]) -> list[Task]:
    """Return the tasks of the workflows that these tasks belong to, in the order in which they were enqueued.

    `get`: returns the task with an id, ``None`` if there is none any more. At most `TASK_LIMIT` tasks are looked up.
    """
    found: dict[str, Task | None] = {}
    todo = list(task_ids)
    while todo and len(found) < TASK_LIMIT:
        task_id = todo.pop()
        if task_id in found:
            continue
        task = found[task_id] = get(task_id)
        if task is not None and task.step is not None:
            todo += [*task.step.prerequisites, *task.step.dependents]
    return sorted((task for task in found.values() if task is not None), key=_age)


def _age(task: Task) -> int:
    return task.seq or 0


def workflow(title: str, tasks: Sequence[Task]) -> Workflow:
    """Return the content of a diagram of these tasks. Tasks that are alike are one node if they are many."""
    kept = {task.id for task in tasks}
    links = {task.id: [one for one in (task.step or _NO_STEP).dependents if one in kept] for task in tasks}
    groups = _alike(tasks, links)
    number_of: dict[str, int] = {}
    nodes: list[Node] = []
    for task in tasks:
        if task.id in number_of:
            continue
        alike = groups[task.id]
        ids = alike if len(alike) > FOLD_ABOVE else [task.id]
        number_of |= dict.fromkeys(ids, len(nodes))
        on_failure = task.step is not None and task.step.on_failure
        nodes.append(Node(tuple(ids), task.name, LIFECYCLE.state(str(task.state)), on_failure))
    pairs = dict.fromkeys(
        (number_of[task_id], number_of[dependent]) for task_id, others in links.items() for dependent in others
    )
    numbers = Counter((task.name, task.state) for task in tasks)
    states = [f"{number} {name} {state}" for (name, state), number in numbers.items()]
    about = f"{len(tasks)} tasks: {', '.join(states)}."
    return Workflow(title, about, tuple(nodes), tuple(Link(*pair) for pair in pairs))


def _alike(tasks: Sequence[Task], links: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return for each task the tasks of the same function, state and place: these wait for, and are awaited by, alike.

    The classes are refined until no class has tasks with different neighbours (Hopcroft's idea of partitions).
    """
    before: dict[str, list[str]] = {task.id: [] for task in tasks}
    for task_id, others in links.items():
        for other in others:
            before[other].append(task_id)
    looks: dict[str, object] = {
        task.id: (task.name, task.state, task.step is not None and task.step.on_failure) for task in tasks
    }
    classes = _numbered(looks)
    while True:
        looks = {
            one: (number, *(frozenset(classes[other] for other in others[one]) for others in (before, links)))
            for one, number in classes.items()
        }
        refined = _numbered(looks)
        if len(set(refined.values())) == len(set(classes.values())):
            break
        classes = refined
    groups: dict[int, list[str]] = {}
    for task_id, number in classes.items():
        groups.setdefault(number, []).append(task_id)
    return {task_id: groups[number] for task_id, number in classes.items()}


def _numbered(looks: dict[str, object]) -> dict[str, int]:
    """Return a number for each key; keys with equal values have equal numbers."""
    numbers: dict[object, int] = {}
    return {key: numbers.setdefault(look, len(numbers)) for key, look in looks.items()}
