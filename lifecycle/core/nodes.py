"""Nodes of workflows as a program writes them: pipelines, groups and chords. A task is a node, too.

This module stands below the task, which is a subclass of `Chained`: so a task has `then`, `error` and `|` without a
late import. The module knows nothing of functions, except that a function makes a task by its method `s`; and nothing
of stores: `lifecycle.workflows.plan` makes the tasks of a workflow out of its nodes.

A node stands at one place of one workflow. This rule excludes cycles.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, Self, TypeVar

from lifecycle.errors import ConfigurationError
from lifecycle.validation import refusal

__all__ = [
    "Callee", "Chained", "Chord", "Group", "Node", "Pipeline", "Place", "chord", "first_task", "group", "whole_of",
]  # fmt: skip


class Callee(Protocol):
    """A task function, as far as a workflow needs one."""

    @property
    def s(self) -> Callable[..., "Node"]:
        """Make a task for a call of the function."""
        ...


N = TypeVar("N", bound="Node")


class Place:
    """The place of a node in the workflow that a program writes."""

    __slots__ = ("callbacks", "is_partial", "parent", "queue")

    def __init__(self, queue: object = None, *, is_partial: bool = False) -> None:
        """`queue`: the queue of the tasks in the node, as far as is known; its `str` names the queue for errors.

        `is_partial`: the node is a task, and arguments of its function are missing so far.
        """
        self.queue, self.is_partial = queue, is_partial
        self.parent: Node | None = None
        """The node that this one is a part of."""
        self.callbacks: list[Node] = []
        """The error callbacks."""


class Node:
    """A part of a workflow: a task, a pipeline, a group or a chord."""

    __slots__ = ("place",)
    place: Place | None
    """``None``: a place of its own."""

    def error(self, callback: "Node | Callee", /, *args: object, **kwargs: object) -> Self:
        """Add an error callback, and return this node.

        The callback runs once if a task of the node does not complete: after it has failed for the last time, was
        revoked, has expired or was canceled. Its function gets a `TaskException` as the last positional argument. If
        all tasks complete, the callback ends `skipped`. Raises `ConfigurationError` as `Pipeline.then` does.

        :param callback: a function, a task made by ``function.s(…)``, or a pipeline that begins with the callback.
        :param args: positional arguments of the function.
        """
        _place(self).callbacks.append(_join(self, callback, args, kwargs, "an error callback"))
        return self

    @property
    def parts(self) -> "tuple[Node, ...]":
        """The nodes that this one consists of, in their order, without error callbacks; none for a task."""
        return ()


class Chained(Node):
    """A node that a pipeline can begin with: a task, a pipeline or a chord."""

    __slots__ = ()

    def then(self, step: "Node | Callee", /, *args: object, **kwargs: object) -> "Pipeline":
        """Add a step to the pipeline that begins with this node, and return the pipeline.

        The step runs after this node has completed, and gets its value: see `Pipeline`. `TaskQueue.enqueue` of this
        node enqueues the whole pipeline from now on. Raises `ConfigurationError` for a step that stands in a workflow
        already, or that belongs to another queue.

        :param step: a function, a task made by ``function.s(…)``, a pipeline, a group or a chord.
        :param args: positional arguments of the function.
        """
        pipeline = None if self.place is None else self.place.parent
        if not (isinstance(pipeline, Pipeline) and pipeline.head is self):
            if pipeline is not None:
                raise ConfigurationError(f"{self} stands in a workflow already: call then() of {pipeline}")
            pipeline = Pipeline(self)
        return pipeline.then(step, *args, **kwargs)

    def __or__(self, step: "Node | Callee") -> "Pipeline":
        """Return the pipeline with one more step: the same as `then`."""
        return self.then(step)


class Pipeline(Chained):
    """Steps, one after the other: each step gets the value of the step before.

    The value of a task is passed as Huey passes values: a tuple as further positional arguments, a dict as those
    keyword arguments that are not given yet, any other value as one more positional argument; ``None`` and ``()`` add
    nothing. The value of a group is the list of its members' values, which is passed as one argument. If a step does
    not complete, the steps after it end `skipped`.
    """

    def __init__(self, *steps: Node | Callee) -> None:
        """`steps`: as in `then`, at least one."""
        self.place = Place()
        self._steps: list[Node] = []
        if not steps:
            raise ConfigurationError("a pipeline needs at least one step: Pipeline(function.s(…))")
        for step in steps:
            self._steps.append(_join(self, step, (), {}, "a step"))

    @property
    def head(self) -> Node:
        """The first step."""
        return self._steps[0]

    @property
    def parts(self) -> tuple[Node, ...]:
        """The steps."""
        return tuple(self._steps)

    def then(self, step: Node | Callee, /, *args: object, **kwargs: object) -> "Pipeline":
        """Add a step at the end of this pipeline, and return this pipeline: see `Chained.then`."""
        self._steps.append(_join(self, step, args, kwargs, "a step"))
        return self

    def __str__(self) -> str:
        return f"the pipeline of {len(self._steps)} steps that begins with {self._steps[0]}"


class Group(Node):
    """Members that run at the same time. Made by `group`."""

    def __init__(self, members: Iterable[Node | Callee]) -> None:
        """`members`: as in `group`."""
        self.place = Place()
        self._members: list[Node] = []
        if isinstance(members, Node | str | bytes | Mapping) or not isinstance(members, Iterable):
            raise refusal(members, "members", "group", "must be an iterable of tasks, as in group([add.s(1, 2)])")
        for member in members:
            self._members.append(_join(self, member, (), {}, "a member of a group"))

    @property
    def parts(self) -> tuple[Node, ...]:
        """The members."""
        return tuple(self._members)

    def then(self, callback: Node | Callee, /, *args: object, **kwargs: object) -> "Chained":
        """Return the chord of this group and a callback, which gets the list of the members' values: see `chord`.

        A group may follow as well: then the return value is a pipeline of two groups.
        """
        return Pipeline(self, callback) if isinstance(callback, Group) else Chord(self, callback, args, kwargs)

    def __or__(self, callback: Node | Callee) -> "Chained":
        """Return the chord: the same as `then`."""
        return self.then(callback)

    def __str__(self) -> str:
        return f"the group of {len(self._members)} members"


class Chord(Chained):
    """A group and its callback. Made by `chord`."""

    def __init__(
        self, header: Group, callback: Node | Callee, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        """`header`: a group that stands in no workflow; `callback`, `args`, `kwargs`: as in `chord`."""
        self.place = Place()
        if isinstance(callback, Group):
            raise refusal(callback, "callback", "chord", "must be one task or a pipeline: two groups are a pipeline")
        self.header = _join(self, header, (), {}, "the header of a chord")
        self.callback = _join(self, callback, args, kwargs, "the callback of a chord")

    @property
    def parts(self) -> tuple[Node, ...]:
        """The header and the callback."""
        return self.header, self.callback

    def __str__(self) -> str:
        return f"the chord of {self.header} and {self.callback}"


def group(members: Iterable[Node | Callee]) -> Group:
    """Return a group: its members run at the same time, as far as there are workers.

    The value of a group is the list of its members' values, in the order of the members. An empty group is complete at
    once, with an empty list. `TaskQueue.enqueue` enqueues all members or none, and returns a `ResultGroup`. Raises
    `ConfigurationError` for a member that stands in a workflow already, or that belongs to another queue.

    :param members: tasks made by ``function.s(…)``, pipelines, groups and chords.
    """
    return Group(members)


def chord(
    header: Group | Iterable[Node | Callee], callback: Node | Callee, /, *args: object, **kwargs: object
) -> Chord:
    """Return a chord: a group, and a callback that runs once after all members have completed.

    The callback gets the list of the members' values as one more positional argument. If a member does not complete,
    the callback ends `skipped`. `TaskQueue.enqueue` returns the `ChordResult` of the callback. Raises
    `ConfigurationError` as `group` does.

    :param header: a group, or its members.
    :param callback: a function, a task made by ``function.s(…)``, or a pipeline.
    :param args: positional arguments of the callback's function.
    """
    return Chord(header if isinstance(header, Group) else Group(header), callback, args, kwargs)


def whole_of(node: Node) -> Node:
    """Return the workflow that is meant by a node: the pipeline that begins with the node, or else the node.

    Raises `ConfigurationError` for a node in the middle of a workflow.
    """
    place, whole = node.place, node
    while place is not None and (parent := place.parent) is not None:
        if not isinstance(parent, Pipeline) or parent.head is not whole:
            raise ConfigurationError(f"{node} is a part of a workflow: enqueue {parent}")
        place, whole = parent.place, parent
    return whole


def first_task(node: Node) -> Node | None:
    """Return the first task in a node, error callbacks left out; ``None`` if there are only empty groups."""
    todo = [node]
    while todo:
        one = todo.pop()
        if isinstance(one, Pipeline | Group | Chord):
            todo.extend(reversed(one.parts))
        else:
            return one
    return None


def _place(node: Node) -> Place:
    if node.place is None:
        node.place = Place()
    return node.place


def _join(parent: Node, part: Node | Callee, args: tuple[object, ...], kwargs: dict[str, object], role: str) -> Node:
    """Make a node a part of another node, and return the part. Raises `ConfigurationError`: see `Chained.then`.

    `role`: a noun for the part, for errors.
    """
    node = _node_of(part, args, kwargs, role)
    place = _place(node)
    if isinstance(place.parent, Pipeline) and place.parent.head is node:  # the head stands for its pipeline
        node = whole_of(node)
        place = _place(node)
    if place.parent is not None:
        raise ConfigurationError(
            f"{node} stands in a workflow already, in {place.parent}: make another task for {role} with function.s(…)"
        )
    above: Node | None = parent
    while above is not None:
        if above is node:
            raise ConfigurationError(f"{node} cannot be {role} of itself, or it would wait for its own end")
        own = _place(above)
        if place.queue is None:
            place.queue = own.queue
        elif own.queue is None:
            own.queue = place.queue
        elif own.queue is not place.queue:
            raise ConfigurationError(
                f"{node} belongs to {place.queue}, and cannot be {role} in a workflow of {own.queue}: a workflow has "
                "one queue; enqueue such a task in a function"
            )
        above = own.parent
    place.parent = parent
    return node


def _node_of(part: Node | Callee, args: tuple[object, ...], kwargs: dict[str, object], role: str) -> Node:
    """Return a part as a node: a function makes a task."""
    if isinstance(part, Node):
        if args or kwargs:
            raise ConfigurationError(f"{part} has its arguments already: give them to function.s(…)")
        return part
    make = getattr(type(part), "s", None)
    if make is None:
        raise refusal(part, role, None, "must be a function of a queue, or a task made by function.s(…)")
    node = part.s(*args, **kwargs)
    if not isinstance(node, Node):
        raise refusal(part, role, None, "must be a function of a queue: its method s makes no task")
    return node
