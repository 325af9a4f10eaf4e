"""Workflows that cannot work: refused where they are written, or when they are enqueued, with what is wrong."""

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import pytest
from conftest import drain, states

from lifecycle import ConfigurationError, Pipeline, Task, TaskQueue, chord, group
from lifecycle.workflows.plan import DEPTH_LIMIT, EDGE_LIMIT


@pytest.fixture
def add(queue):
    @queue.task(name="add")
    def add(a, b):
        return a + b

    return add


@pytest.fixture
def one(queue):
    return queue.task(name="one")(lambda a: a)


@pytest.fixture
def of_other_queue(clock):
    with_name = TaskQueue("memory://", name="other", clock=clock)
    yield with_name.task(name="elsewhere")(lambda *args: args)
    with_name.close()


def refused(text, call, error=ConfigurationError):
    with pytest.raises(error, match=re.escape(text)) as caught:
        call()
    assert type(caught.value) is error
    return str(caught.value)


# Where a workflow is written ---------------------------------------------------------------------------------------


def test_a_task_stands_at_one_place(add):
    """A task that stands in a workflow is refused at a second place, and the error names both."""
    task = add.s(1)
    pipeline = add.s(1, 2) | task
    error = refused("stands in a workflow already", lambda: group([add.s(3, 4), task]))
    assert task.id in error
    assert str(pipeline) in error
    refused("stands in a workflow already", lambda: add.s(1, 2).then(task))
    refused("stands in a workflow already", lambda: add.s(1, 2).error(task))
    refused("stands in a workflow already", lambda: chord([task], add))
    twice = add.s(1, 2)
    refused("stands in a workflow already", lambda: group([twice, twice]))


def test_cycles_are_refused(add):
    """A workflow cannot contain itself, and no task can follow itself, at any depth."""
    task = add.s(1, 2)
    refused("of itself", lambda: task.then(task))
    first, second = add.s(1, 2), add.s(3)
    pipeline = first | second
    refused("stands in a workflow already", lambda: second.then(first))
    refused("of itself", lambda: pipeline.then(pipeline))
    refused("of itself", lambda: pipeline.then(first))
    refused("of itself", lambda: pipeline.error(pipeline))
    outer = Pipeline(group([pipeline]))
    refused("of itself", lambda: pipeline.then(outer))
    refused("of itself", lambda: outer.then(outer))


def test_a_task_of_another_queue_is_refused(queue, add, of_other_queue):
    """A workflow has one queue; the error names both queues, wherever the task of the other one stands."""
    for write in (
        lambda: add.s(1, 2).then(of_other_queue),
        lambda: add.s(1, 2).error(of_other_queue),
        lambda: group([add.s(1, 2), of_other_queue.s()]),
        lambda: chord([of_other_queue.s(), of_other_queue.s()], add),
        lambda: group([group([]), add.s(1, 2)]).then(of_other_queue),
    ):
        error = refused("belongs to the queue", write)
        assert "the queue 'other' on memory://" in error
        assert str(queue.engine) in error
    hidden = Pipeline(group([]))
    outer = group([add.s(1, 2), hidden])
    refused("belongs to the queue", lambda: hidden.then(of_other_queue))
    assert len(outer.parts) == 2


def test_a_whole_workflow_of_another_queue_is_refused(queue, of_other_queue):
    """A queue enqueues workflows of its own functions only."""
    refused("cannot be enqueued in the queue", lambda: queue.enqueue(group([of_other_queue.s()])))
    assert sum(queue.counts().values()) == 0


@pytest.mark.parametrize("value", [5, None, "add", len, object()])
def test_what_is_no_task_is_no_part(add, queue, value):
    """A part of a workflow is a function of a queue, a task, or another node; anything else is refused."""
    for write in (
        lambda: add.s(1, 2).then(value),
        lambda: add.s(1, 2) | value,
        lambda: add.s(1, 2).error(value),
        lambda: group([value]),
        lambda: chord([add.s(1, 2)], value),
        lambda: Pipeline(value),
    ):
        refused("must be a function of a queue, or a task", write)
    refused("is no task", lambda: queue.enqueue(value))
    refused("is no task", lambda: queue.enqueue_many([add.s(1, 2) | add.s(3), value]))


def test_arguments_belong_to_functions(add):
    """Arguments beside a task, which has its own, are refused."""
    refused("has its arguments already", lambda: add.s(1, 2).then(add.s(1), 2))
    refused("has its arguments already", lambda: chord([], add.s(), 2))


def test_too_many_arguments_are_refused_by_s(add):
    """Arguments may be missing in `s`; too many and unknown ones are refused there."""
    refused("too many", lambda: add.s(1, 2, 3), TypeError)
    refused("unexpected keyword argument 'c'", lambda: add.s(c=3), TypeError)
    refused("too many", lambda: add.s(1, 2).then(add, 1, 2, 3), TypeError)
    assert isinstance(add.s(), Task)


def test_groups_are_made_of_iterables(add):
    """A group needs an iterable of members, a pipeline at least one step, a chord one callback."""
    for members in (add.s(1, 2), 5, "ab", {"a": 1}, None):
        refused("must be an iterable of tasks", lambda members=members: group(members))
    refused("at least one step", Pipeline)
    refused("two groups are a pipeline", lambda: chord([], group([])))
    assert isinstance(group([]) | group([]), Pipeline)


# When a workflow is enqueued ---------------------------------------------------------------------------------------


def test_a_missing_argument_of_a_task_of_its_own_is_refused(queue, add):
    """A task in no workflow needs all its arguments: the error is that of a plain call."""
    error = refused("add(): missing a required argument: 'b'", lambda: queue.enqueue(add.s(1)), TypeError)
    assert error == refused("missing", lambda: queue.enqueue_many([add.s(1, 2), add.s(1)]), TypeError)
    assert sum(queue.counts().values()) == 0


@pytest.mark.parametrize(
    ("write", "where", "reason"),
    [
        (lambda add, one: add.s(1) | one.s(), "step 1", "missing a required argument: 'b'"),
        (lambda add, one: group([add.s(1, 2), add.s(1)]), "member 2", "missing a required argument: 'b'"),
        (lambda add, one: chord([one.s(1)], add.s()), "part 2", "missing a required argument: 'b'"),
        (lambda add, one: chord([one.s(1)], add.s(1, 2)), "part 2", "too many positional arguments"),
        (lambda add, one: chord([], add), "part 2", "missing a required argument: 'b'"),
        (lambda add, one: one.s(1).error(add), "error callback 1", "missing a required argument: 'b'"),
        (lambda add, one: one.s(1).error(one, 5), "error callback 1", "too many positional arguments"),
        (lambda add, one: group([one.s(1), one.s(2)]) | group([one.s(), add.s()]), "member 2 of step 2", "'b'"),
        (lambda add, one: Pipeline(group([]), add), "step 2", "missing a required argument: 'b'"),
    ],
)
def test_a_missing_argument_of_a_step_is_refused(queue, add, one, write, where, reason):
    """A step that certainly lacks an argument, or gets one too many, is refused: with its place, function and argument."""
    error = refused(reason, lambda: queue.enqueue(write(add, one)))
    assert error.startswith(where)
    assert "add()" in error or "one()" in error
    assert sum(queue.counts().values()) == 0


def returns(annotation):
    def before():
        pass

    before.__annotations__["return"] = annotation
    return before


@pytest.mark.parametrize(
    ("annotation", "refused_of"),
    [
        (int, {"none", "two"}),
        ("int", {"none", "two"}),
        (list[int], {"none", "two"}),
        (None, {"one", "two"}),
        ("None", {"one", "two"}),
        (tuple, set()),
        (dict[str, int], set()),
        (object, set()),
        (int | None, set()),
        (Any, set()),
        (Sequence[int], set()),
        (Annotated[int, "positive"], set()),
        (Callable[[], int], {"none", "two"}),
        ("not an annotation", set()),
        ("missing_name", set()),
        (5, set()),
    ],
)
def test_what_an_annotation_says_is_checked(queue, annotation, refused_of):
    """The return annotation of the function before says how many arguments a step gets; without one, nobody knows."""
    before = queue.task(name="before")(returns(annotation))
    functions = {
        "none": queue.task(name="none")(lambda: 0),
        "one": queue.task(name="one")(lambda a: 0),
        "two": queue.task(name="two")(lambda a, b: 0),
    }
    for name, function in functions.items():
        pipeline = before.s() | function.s()
        if name in refused_of:
            assert refused(f"step 2: {name}()", lambda pipeline=pipeline: queue.enqueue(pipeline))
        else:
            queue.enqueue(pipeline)


def test_a_part_of_a_workflow_is_not_enqueued_alone(queue, add):
    """A task in the middle of a workflow is refused: enqueue the workflow. The head stands for its pipeline."""
    head, middle = add.s(1, 2), add.s(3)
    head.then(middle)
    refused("is a part of a workflow", lambda: queue.enqueue(middle))
    member = add.s(1, 2)
    group([member])
    refused("is a part of a workflow", lambda: queue.enqueue_many([add.s(1, 2), member]))
    callback = add.s(1)
    add.s(1, 2).error(callback)
    refused("is a part of a workflow", lambda: queue.enqueue(callback))
    results = queue.enqueue(head)
    drain(queue)
    assert results.get() == [3, 6]


def test_a_workflow_is_enqueued_once(queue, add):
    """A workflow that was enqueued is refused a second time, and has run once."""
    pipeline = add.s(1, 2) | add.s(3)
    results = queue.enqueue(pipeline)
    refused("was enqueued before", lambda: queue.enqueue(pipeline))
    drain(queue)
    assert [states(result) for result in results] == ["queued executing complete", "pending queued executing complete"]


def test_a_workflow_too_deep_or_too_wide_is_refused(queue, one, monkeypatch):
    """A workflow that is nested too deep, or has too many pairs of tasks that wait for one another, is refused."""
    node = one.s(1)
    for _ in range(DEPTH_LIMIT + 1):
        node = group([node])
    refused(f"deeper than {DEPTH_LIMIT} levels", lambda: queue.enqueue(node))
    monkeypatch.setattr("lifecycle.workflows.plan.EDGE_LIMIT", 100)
    assert EDGE_LIMIT > 10**5
    wide = [group([one.s(1) for _ in range(11)]) | group([one.s() for _ in range(10)]) for _ in range(1)]
    refused("put one task between", lambda: queue.enqueue(wide[0]))
    assert sum(queue.counts().values()) == 0


def test_an_error_callback_begins_with_a_task(queue, one):
    """An error callback is a task, or a pipeline that begins with one."""
    refused("begins with one task", lambda: queue.enqueue(one.s(1).error(Pipeline(group([]), one))))


def test_a_step_is_not_rescheduled(queue, one):
    """A step of a workflow cannot be rescheduled: it has its turn in the workflow."""
    _, second = queue.enqueue(one.s(1) | one.s())
    refused("a step of a workflow", lambda: second.reschedule(delay=5))
