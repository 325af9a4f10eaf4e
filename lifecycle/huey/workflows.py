"""Pipelines, groups and chords as Huey's programs write them, on top of `lifecycle.core.nodes`."""

from collections.abc import Iterable, Mapping
from typing import Self

from lifecycle.core import nodes
from lifecycle.errors import ConfigurationError
from lifecycle.huey.tasks import Task, signature
from lifecycle.validation import refusal

__all__ = ["chord", "group", "node_of", "steps_of"]


class group:  # noqa: N801 -- Huey's name
    """Tasks that run at the same time."""

    def __init__(self, tasks: "Iterable[Task | chord]") -> None:
        """`tasks`: made by ``function.s(…)``, with their pipelines, and chords. Raises `ConfigurationError`."""
        if isinstance(tasks, Task | group | chord | str | bytes | Mapping) or not isinstance(tasks, Iterable):
            raise refusal(tasks, "tasks", "group", "must be an iterable of tasks, as in group([add.s(1, 2)])")
        self.tasks = list(tasks)
        for task in self.tasks:
            if not isinstance(task, Task | chord):
                raise refusal(task, "tasks", "group", "must be tasks made by function.s(…), or chords")

    def then(self, task: object, *args: object, **kwargs: object) -> "chord":
        """Return the chord of these tasks and a callback, which gets the list of their values."""
        return chord(self.tasks, signature(task, args, kwargs))

    def error(self, task: object, *args: object, **kwargs: object) -> Self:
        """Let a task run for each member that does not complete, with its error, and return this group."""
        for member in self.tasks:
            member.error(task.copy() if isinstance(task, Task) else task, *args, **kwargs)
        return self


class chord:  # noqa: N801 -- Huey's name
    """Tasks that run at the same time, and a callback that gets the list of their values."""

    def __init__(self, tasks: "Iterable[Task | chord]", callback: object) -> None:
        """`callback`: a function, or a task made by ``function.s(…)``, with its pipeline."""
        self.tasks = group(tasks).tasks
        self.callback = signature(callback, (), {})

    def then(self, task: object, *args: object, **kwargs: object) -> Self:
        """Let a task follow the callback, with its value, and return this chord."""
        self.callback.then(task, *args, **kwargs)
        return self

    def error(self, task: object, *args: object, **kwargs: object) -> Self:
        """Let a task run if the callback does not complete, with the error, and return this chord."""
        self.callback.error(task, *args, **kwargs)
        return self


def node_of(part: object) -> nodes.Node:
    """Return a part as a node of this library, with all that follows it. Raises `ConfigurationError`."""
    match part:
        case chord():
            header = nodes.group([node_of(member) for member in part.tasks])
            return nodes.chord(header, _linked(part.callback))
        case group():
            return nodes.group([node_of(member) for member in part.tasks])
        case Task():
            return _linked(part)
    raise ConfigurationError(f"task={part!r}: is no task: make one with function.s(…)")


def steps_of(task: Task) -> list[Task]:
    """Return a task and those that follow it in its pipeline."""
    steps: list[Task] = []
    step: Task | None = task
    while step is not None:
        if step in steps:
            raise ConfigurationError(f"{step} follows itself in a pipeline: make another task with function.s(…)")
        steps.append(step)
        step = step.on_complete
    return steps


def _linked(task: Task) -> nodes.Node:
    """Return the node of a task: a pipeline if others follow."""
    steps = steps_of(task)
    for step in steps:
        if step.on_error is not None:
            step.inner.error(_linked(step.on_error))
    return step.inner if len(steps) == 1 else nodes.Pipeline(*(step.inner for step in steps))
