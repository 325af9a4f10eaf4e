"""Pipelines, groups and chords with Huey's names, on each store."""

import pytest

from lifecycle import ConfigurationError, TaskException
from lifecycle.huey import ChordResult, MemoryHuey, Result, ResultGroup, chord, group
from lifecycle.testing.signal_log import SignalLog


def run(huey):
    """Run all tasks that are due, as a consumer does."""
    while huey.queue.run_next() is not None:
        pass


def functions(huey):
    """Declare functions for workflows."""
    add = huey.task()(lambda a, b=0: a + b)
    total = huey.task(name="total")(sum)
    errors = []
    fail = huey.task(name="fail", retries=1)(lambda *_: 1 / 0)
    note = huey.task(name="note")(lambda *args: errors.append((args[:-1], args[-1].error_type)))
    return add, total, fail, note, errors


def test_a_pipeline_passes_values_on(huey):
    """`then` adds steps, which get the value of the step before; the handle is a group of the handles of all steps."""
    add, *_ = functions(huey)
    pipeline = add.s(1, 2, id="first").then(add, 10, priority=3).then(add.s(), 100)
    assert (pipeline.id, pipeline.on_complete.priority, pipeline.on_complete.on_complete.args) == ("first", 3, (100,))
    results = huey.enqueue(pipeline)
    assert isinstance(results, ResultGroup)
    assert (len(huey), results()) == (1, [None, None, None])
    run(huey)
    assert results() == [3, 13, 113]


def test_steps_are_driven_by_hand(huey):
    """A step whose turn has come is in the queue; a step after a failure is skipped with the execution that failed."""
    add, _, fail, note, errors = functions(huey)
    _, second = huey.enqueue(add.s(1, 2).then(add, 10))
    assert huey.execute(huey.dequeue()) == 3
    assert [task.id for task in huey.pending()] == [second.id]
    assert (len(huey), huey.dequeue().id, len(huey)) == (1, second.id, 0)
    assert huey.execute(second.task) == 13
    _, skipped = huey.enqueue(fail.s(retries=0).error(note, "left").then(add, 1))
    assert huey.execute(huey.dequeue()) is None
    assert huey.queue.get(skipped.id).state == "skipped"
    with pytest.raises(TaskException, match="did not complete"):
        skipped.get()
    assert skipped.get_raw_result().metadata["task_id"] == skipped.id
    huey.execute(huey.dequeue())
    assert errors == [(("left",), "ZeroDivisionError")]


def test_error_callbacks_are_called_once_and_in_a_chain(huey):
    """An error callback runs once, after the last try; a second one is for the failure of the first."""
    add, _, fail, note, errors = functions(huey)
    huey.enqueue(fail.s().error(fail, "first").error(note, "second"))
    run(huey)
    assert errors == [(("second",), "ZeroDivisionError")]
    errors.clear()
    huey.enqueue(add.s(1).error(note))
    run(huey)
    assert errors == []


def test_groups_and_chords(huey):
    """A group has a handle with all values; a chord's callback gets the list, and its steps follow."""
    add, total, *_ = functions(huey)
    members = huey.enqueue(group(add.s(n) for n in range(3)))
    result = huey.enqueue(group([add.s(1), add.s(2).then(add, 10)]).then(total).then(add, 1000))
    plain = huey.enqueue(chord([add.s(5), chord([add.s(6), add.s(7)], total)], total.s()))
    assert isinstance(result, ChordResult)
    assert isinstance(plain.callback, Result)
    run(huey)
    assert members() == [0, 1, 2]
    assert (result(), result.results(), result.pipeline_results()) == (13, [1, 12], [13, 1013])
    assert (plain.get(blocking=True), plain.results(), plain.pipeline_results) == (18, [5, 13], None)
    result.reset()
    assert result() is None


def test_a_chord_with_a_failed_member_has_no_value(huey):
    """If a member of a chord does not complete, its callback is skipped; error callbacks get the failure."""
    add, total, fail, note, errors = functions(huey)
    result = huey.enqueue(chord([add.s(1), fail.s()], total).error(note, "callback"))
    members = huey.enqueue(group([add.s(1), fail.s(), fail.s()]).error(note.s("member")))
    run(huey)
    with pytest.raises(TaskException, match="skipped"):
        result.get(blocking=True)
    with pytest.raises(TaskException, match="ZeroDivisionError"):
        members.get()
    assert sorted(args for args, _ in errors) == [("callback",), ("member",), ("member",)]


def test_handlers_of_all_signals_get_those_of_huey(huey):
    """A handler without names gets the signals that Huey has, not those of steps that wait or are skipped."""
    sent = []
    huey.signal()(lambda signal, task, *_: sent.append(signal))
    log = SignalLog(huey.queue)
    add, *_ = functions(huey)
    _, second = huey.enqueue(add.s(1).then(add, 2))
    run(huey)
    assert log.of(second)[0] == "pending"
    assert sent == ["enqueued", "executing", "complete"] * 2


def test_immediate_mode_runs_workflows():
    """In immediate mode a workflow has run when `enqueue` returns; with ``results=False`` there is no handle."""
    huey = MemoryHuey(immediate=True)
    add, total, *_ = functions(huey)
    assert huey.enqueue(chord([add.s(1), add.s(2)], total).then(add, 3)).pipeline_results() == [3, 6]
    huey.results = False
    assert huey.enqueue(add.s(1).then(add)) is None
    huey.close()


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda add: add.s().then(len), "must be a function with the decorator"),
        (lambda add: add.s(1).error("note"), "must be a function with the decorator"),
        (lambda add: group(add.s(1)), "an iterable of tasks"),
        (lambda add: group([add]), "made by function.s"),
        (lambda add: chord([group([])], add), "made by function.s"),
        (lambda add: add.huey.enqueue(add.s().then(add)), "missing a required argument"),
        (lambda add: add.huey.enqueue(chord([add.s(1, 2, 3).then(add)], add)), "too many"),
        (lambda add: add.huey.enqueue([add.s(1)]), "is no task"),
        (lambda add: add.huey.enqueue(twice(add)), "already"),
        (lambda add: add.huey.enqueue(circle(add)), "follows itself"),
    ],
)
def test_workflows_are_refused_where_they_are_written(make, error):
    """A step, a member or a callback that cannot be meant is refused, with a reason; nothing is enqueued."""
    huey = MemoryHuey()
    add = huey.task()(lambda a, b=0: a + b)
    with pytest.raises((ConfigurationError, TypeError), match=error):
        make(add)
    assert huey.queue.tasks() == []
    huey.close()


def twice(add):
    """Return a group with one task at two places."""
    task = add.s(1)
    return group([task, task])


def circle(add):
    """Return a task that follows itself."""
    task = add.s(1)
    return task.then(task)
