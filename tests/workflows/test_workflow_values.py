"""Random workflows against a pure evaluator: who runs, how often, with which values, and what becomes of the others."""

from collections import Counter

import pytest
from conftest import KINDS
from hypothesis import given, note
from hypothesis import strategies as st

from lifecycle import Pipeline, chord, group
from lifecycle.core.policies import AT_REST
from lifecycle.core.table import COMPLETED, ERROR, SKIPPED
from lifecycle.testing import drain

NOTHING = object()
"""What the first step gets."""
VALUES = {
    "none": lambda key: None,
    "empty tuple": lambda key: (),
    "tuple": lambda key: (key, [key]),
    "dict": lambda key: {"named": key, "other": 1},
    "list": lambda key: [key],
    "text": lambda key: f"value {key}",
    "zero": lambda key: 0,
}


class Leaf:
    """A task of the specification: how often it fails before it returns, and what it returns."""

    parts = ()

    def __init__(self, fails, retries, value, callbacks):
        self.fails, self.retries, self.value, self.callbacks = fails, retries, value, callbacks

    def __repr__(self):
        return f"<{self.key} fails={self.fails} retries={self.retries} {self.value} callbacks={self.callbacks}>"


class Inner:
    """A pipeline, group or chord of the specification."""

    def __init__(self, kind, parts, callbacks):
        self.kind, self.parts, self.callbacks = kind, parts, callbacks

    def __repr__(self):
        return f"{self.kind}({', '.join(map(repr, self.parts))}; callbacks={self.callbacks})"


some_callbacks = st.sampled_from([0, 0, 0, 1, 2])
leaves = st.builds(
    Leaf, st.sampled_from([0, 0, 0, 1, 2]), st.integers(0, 2), st.sampled_from(sorted(VALUES)), some_callbacks
)


def inner(nodes):
    tasks = st.builds(Inner, st.just("pipeline"), st.lists(nodes, min_size=1, max_size=3), some_callbacks) | leaves
    groups = st.builds(Inner, st.just("group"), st.lists(nodes, max_size=3), some_callbacks)
    chords = st.builds(Inner, st.just("chord"), st.tuples(groups, tasks), some_callbacks)
    return tasks | groups | chords


workflows = st.recursive(leaves, inner, max_leaves=8)


class World:
    """The functions of one queue, the nodes of a specification, and what has happened."""

    def __init__(self, queue):
        self.leaves, self.calls, self.handled = {}, [], []
        self.ids = {}

        @queue.task(name="work")
        def work(key, *got, **named):
            self.calls.append((key, got, named))
            leaf = self.leaves[key]
            if sum(called == key for called, *_ in self.calls) <= leaf.fails:
                raise ValueError(key)
            return VALUES[leaf.value](key)

        @queue.task(name="handle")
        def handle(name, error):
            self.handled.append((name, error))

        self.work, self.handle = work, handle

    def node(self, spec):
        """Return the node of a part of the specification."""
        if isinstance(spec, Leaf):
            spec.key = len(self.leaves)
            self.leaves[spec.key] = spec
            node = self.work.s(spec.key)
            node.retries = spec.retries
            self.ids[spec.key] = node.id
        else:
            parts = [self.node(part) for part in spec.parts]
            node = {
                "pipeline": lambda: Pipeline(*parts),
                "group": lambda: group(parts),
                "chord": lambda: chord(*parts),
            }[spec.kind]()
        spec.names = [f"{len(self.ids)}.{number}" for number in range(spec.callbacks)]
        for name in spec.names:
            callback = self.handle.s(name)
            self.ids[name] = callback.id
            node.error(callback)
        return node


class Expected:
    """The pure evaluator: states, arguments and values, by recursion over the specification."""

    def __init__(self):
        self.states, self.arguments, self.called = {}, {}, Counter()
        self.absent = set()
        """Error callbacks of nodes without any task before their end."""

    def value(self, spec, before, goes_on, *, waits=False):
        """Return the value of a part, whether all before its end has completed, and whether a task is before its end."""
        if isinstance(spec, Leaf):
            value, goes_on, waits = self.leaf(spec, before, goes_on)
        elif spec.kind == "group":
            ends = [self.value(part, before, goes_on, waits=waits) for part in spec.parts]
            spec.result = value = [value for value, *_ in ends]
            goes_on = all([goes_on if not ends else True, *(end[1] for end in ends)])
            waits = waits if not ends else any(end[2] for end in ends)
        else:
            value = before
            for part in spec.parts:
                value, goes_on, waits = self.value(part, value, goes_on, waits=waits)
        for name in spec.names:
            if not waits:
                self.absent.add(name)
            else:
                self.states[name] = SKIPPED if goes_on else COMPLETED
        return value, goes_on, waits

    def leaf(self, spec, before, goes_on):
        spec.result = VALUES[spec.value](spec.key)
        if not goes_on:
            self.states[spec.key] = SKIPPED
            return spec.result, False, True
        args, named = (), {}
        if isinstance(before, tuple):
            args = before
        elif isinstance(before, dict):
            named = before
        elif before is not None and before is not NOTHING:
            args = (before,)
        self.arguments[spec.key] = args, named
        completes = spec.fails <= spec.retries
        self.called[spec.key] = min(spec.fails, spec.retries) + 1
        self.states[spec.key] = COMPLETED if completes else ERROR
        return spec.result, completes, True


def shown(spec, outermost=True):
    """The values as the handle of a part shows them: a pipeline shows its steps, within other nodes only the last one."""
    if isinstance(spec, Leaf):
        return spec.result
    if spec.kind == "chord":
        return shown(spec.parts[1], False)
    if spec.kind == "pipeline" and not outermost:
        return shown(spec.parts[-1], False)
    return [shown(part, False) for part in spec.parts]


@pytest.mark.parametrize("kind", KINDS)
@given(spec=workflows)
def test_a_workflow_runs_as_the_evaluator_says(kind, new, spec):
    """Each task runs once per attempt with the values of those before it; each callback runs once, or is skipped."""
    with new(kind) as queue:
        world = World(queue)
        node = world.node(spec)
        note(repr(spec))
        expected = Expected()
        _, goes_on, _ = expected.value(spec, NOTHING, True)
        result = queue.enqueue(node)
        drain(queue)

        assert {key: queue.get(world.ids[key]).state for key in expected.states} == expected.states
        assert all(state in AT_REST for state, count in queue.counts().items() if count)
        assert sum(queue.counts().values()) == len(expected.states)
        assert Counter(key for key, *_ in world.calls) == expected.called
        for key, got, named in world.calls:
            assert (got, named) == expected.arguments[key]
        handled = Counter(name for name, _ in world.handled)
        assert handled == Counter(
            name for name, state in expected.states.items() if isinstance(name, str) and state == COMPLETED
        )
        failed = {world.ids[key] for key, state in expected.states.items() if state == ERROR}
        assert {error.metadata["task_id"] for _, error in world.handled} <= failed
        assert all(error.metadata["error"].startswith("ValueError") for _, error in world.handled)
        if goes_on:
            assert result.get() == shown(spec)
        for name in expected.absent:
            assert queue.storage.get(world.ids[name]) is None
