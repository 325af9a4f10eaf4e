"""The handles of workflows: values, progress, states, histories, waiting, and changing the whole."""

from itertools import pairwise

import pytest
from conftest import drain, failure, states

from lifecycle import (
    LIFECYCLE,
    SIGNAL_COMPLETE,
    SIGNAL_ENQUEUED,
    SIGNAL_PENDING,
    SIGNAL_SKIPPED,
    ChordResult,
    Result,
    ResultGroup,
    TaskCanceled,
    TaskException,
    chord,
    group,
)
from lifecycle.core.table import CANCELED, COMPLETED, ERROR, EXECUTING, PENDING, QUEUED, REVOKED, SKIPPED


@pytest.fixture
def add(queue):
    return queue.task(name="add")(lambda a, b: a + b)


@pytest.fixture
def total(queue):
    return queue.task(name="total")(sum)


@pytest.fixture
def fail(queue):
    @queue.task(name="fail")
    def fail(*args):
        raise ValueError(*args)

    return fail


@pytest.fixture
def handle(queue):
    """A task function for error callbacks; the attribute `errors` has what it was called with."""

    @queue.task(name="handle")
    def handle(error):
        handle.errors.append(error)
        return "handled"

    handle.errors = []
    return handle


# Values ------------------------------------------------------------------------------------------------------------


def test_the_handle_of_a_pipeline_has_its_steps(queue, add):
    """A pipeline's handle is the sequence of its steps' handles, and `get` returns their values in order."""
    results = queue.enqueue(add.s(1, 2).then(add, 3).then(add, b=4))
    assert isinstance(results, ResultGroup)
    assert len(results) == 3
    assert results.get() == [None, None, None]
    drain(queue)
    assert [result.get() for result in results] == results() == results.get(timeout=0) == [3, 6, 10]
    assert results[-1].get() == 10
    assert [one.get() for one in results[:2]] == [3, 6]


def test_the_handle_of_a_chord_is_that_of_its_callback(queue, add, total):
    """A chord's handle is the callback's, with the members' handle beside it, nested as the groups are."""
    result = queue.enqueue(chord([add.s(1, 2) | add.s(10), add.s(3, 4)], total))
    assert isinstance(result, ChordResult)
    drain(queue)
    assert result.get() == 20
    assert result.members.get() == [13, 7]
    assert result.whole.get() == [[13, 7], 20]
    assert result.whole.progress == (4, 4)


def test_groups_nest(queue, add):
    """The handle of a group in a group is a `ResultGroup` in turn; a pipeline in a group has its last step's handle."""
    results = queue.enqueue(group([group([]), group([add.s(1, 2), add.s(3, 4)]), add.s(5, 6) | add.s(7)]))
    drain(queue)
    assert results.get() == [[], [3, 7], 18]
    assert [type(result) for result in results] == [ResultGroup, ResultGroup, Result]
    assert len(results.ids) == 4


def test_empty_groups_are_complete_at_once(queue, total):
    """An empty group has no task; the callback of an empty chord is not pending, and gets an empty list."""
    results = queue.enqueue(group([]))
    assert (results.get(True), list(results.as_completed()), results.state) == ([], [], COMPLETED)
    assert results.progress == (0, 0)
    assert results.history() == []
    result = queue.enqueue(chord([], total))
    assert result.state == QUEUED
    drain(queue)
    assert result.get() == 0


def test_many_workflows_are_enqueued_together(queue, add, total):
    """`enqueue_many` takes workflows and tasks, and returns the handle of each; a head stands for its pipeline."""
    head = add.s(1, 2)
    head.then(add, 3)
    results = queue.enqueue_many([add.s(1, 1), head, chord([add.s(1, 2)], total)])
    drain(queue)
    assert [result.get() for result in results] == [2, [3, 6], 3]


def test_immediate_mode_runs_workflows(make):
    """In immediate mode a workflow has run when `enqueue` returns."""
    queue = make(immediate=True)
    add = queue.task(name="add")(lambda a, b: a + b)
    assert queue.enqueue(add.s(1, 2) | add.s(3)).get() == [3, 6]
    assert queue.enqueue(chord([add.s(1, 2), add.s(3, 4)], queue.task(name="total")(sum))).get() == 10


def test_async_functions_are_steps(queue):
    """`async` functions run in workflows as plain ones do."""

    @queue.task(name="double")
    async def double(n):
        return 2 * n

    results = queue.enqueue(double.s(1) | double.s() | double.s())
    drain(queue)
    assert results.get() == [2, 4, 8]


# What does not complete --------------------------------------------------------------------------------------------


def test_the_rest_of_a_pipeline_is_skipped(queue, add, fail, handle):
    """After a step has failed, the rest is skipped, and `get` says because of which task; the error callback runs once."""
    results = queue.enqueue((add.s(1, 2) | fail.s() | add.s(1) | add.s(1)).error(handle))
    drain(queue)
    assert [result.state for result in results] == [COMPLETED, ERROR, SKIPPED, SKIPPED]
    assert results.state == ERROR
    for skipped in results[2:]:
        assert states(skipped) == f"{PENDING} {SKIPPED}"
        error = failure(skipped)
        assert error["state"] == SKIPPED
        assert error["error"] == (
            f"the task was skipped, since task {results[1].id} (fail) before it did not complete: it is error"
        )
    assert [error.metadata["task_id"] for error in handle.errors] == [results[1].id]
    assert results.callbacks[0].get() == "handled"
    with pytest.raises(TaskException, match="ValueError"):
        results.get()


def test_a_skipped_step_is_logged(queue, fail, add, caplog):
    """The log has a line for each skipped step, without a number of attempts."""
    caplog.set_level("INFO", "lifecycle.task")
    results = queue.enqueue(fail.s() | add.s(1))
    drain(queue)
    (line,) = [record.getMessage() for record in caplog.records if results[1].id in record.getMessage()]
    assert line.startswith(f"task {SKIPPED}: function=add task={results[1].id} worker=")


def test_an_error_callback_is_skipped_if_all_complete(queue, add, handle):
    """If all tasks complete, the error callback is skipped, and reading its result says why."""
    results = queue.enqueue(add.s(1, 2).then(add, 3).error(handle))
    drain(queue)
    (callback,) = results.callbacks
    assert states(callback) == f"{PENDING} {SKIPPED}"
    assert failure(callback)["error"] == "the error callback was skipped: all tasks before it have completed"
    assert results.state == COMPLETED
    assert handle.errors == []


def test_a_task_of_its_own_may_have_error_callbacks(queue, fail, handle):
    """A task in no pipeline may have error callbacks; its handle is a plain one."""
    task = fail.s(1).error(handle).error(handle)
    result = queue.enqueue(task)
    assert type(result) is Result
    drain(queue)
    assert [error.metadata["task_id"] for error in handle.errors] == [result.id] * 2


@pytest.mark.parametrize("end", ["revoke", "expire", "cancel"])
def test_what_ends_without_running_is_told(queue, clock, add, handle, end):
    """A step that is revoked or expires in the middle calls the error callback once, with its state, without a traceback."""
    middle = add.s(3)
    if end == "expire":
        middle.expires = clock.now() + 60
        middle.eta = clock.now() + 50
    results = queue.enqueue((add.s(1, 2) | middle | add.s(4)).error(handle))
    if end == "cancel":
        results[1].cancel()
    elif end == "revoke":
        queue.revoke(middle)
    drain(queue)
    clock.advance(100)
    drain(queue)
    state = results[1].state
    assert state == ("expired" if end == "expire" else REVOKED)
    assert results[2].state == SKIPPED
    (error,) = handle.errors
    assert error.metadata["task_id"] == results[1].id
    assert (error.state, error.traceback) == (state, "")
    assert str(error) == f"the task was not completed: it is {state}"


def test_a_chord_is_skipped_if_a_member_fails(queue, add, total, fail, handle):
    """If a member of a chord does not complete, the callback is skipped; the other members run all the same."""
    result = queue.enqueue(chord([add.s(1, 2), fail.s(), fail.s(), add.s(3, 4)], total).error(handle))
    drain(queue)
    assert result.state == SKIPPED
    assert [member.state for member in result.members] == [COMPLETED, ERROR, ERROR, COMPLETED]
    assert failure(result)["error"].startswith(f"the task was skipped, since task {result.members[1].id} (fail)")
    assert [error.metadata["task_id"] for error in handle.errors] == [result.members[1].id]


def test_retries_come_first(queue, clock, add, handle):
    """A step that is retried has not failed: the next step waits, and gets the value in the end, in each of its attempts."""
    got = []

    @queue.task(name="flaky", retries=1, retry_delay=10)
    def flaky(n):
        got.append(n)
        if len(got) % 2:
            raise ValueError
        return n

    results = queue.enqueue((add.s(1, 2) | flaky | flaky).error(handle))
    drain(queue)
    assert (got, results[2].state) == ([3], PENDING)
    for _ in range(2):
        clock.advance(10)
        drain(queue)
    assert got == [3, 3, 3, 3]
    assert results.get() == [3, 3, 3]
    assert handle.errors == []


def test_a_result_that_was_deleted_fails_the_step(queue, clock, add):
    """If the result of the step before was deleted, the step fails with one error that names the task and the retention."""
    step = add.s(3)
    step.eta = clock.now() + 100
    first, second = queue.enqueue(add.s(1, 2) | step)
    drain(queue)
    clock.advance(100)
    assert queue.storage.prune(clock.now()) == 1
    drain(queue)
    error = failure(second)["error"]
    assert first.id in error
    assert "retention is too short" in error


# Signals and arguments ---------------------------------------------------------------------------------------------


def test_handlers_and_hooks_see_complete_arguments(queue, add):
    """Handlers of `executing`, hooks, and a function with its task see the arguments with the inputs."""
    seen = []

    @queue.task(name="show", context=True)
    def show(a, b, task):
        seen.append(("function", task.args))

    queue.signal("executing", SIGNAL_COMPLETE)(lambda signal, task: seen.append((signal, task.args)))
    queue.pre_execute()(lambda task: seen.append(("hook", task.args)))
    queue.enqueue(add.s(1, 2) | show.s(5))
    drain(queue)
    assert seen == [
        *((name, (1, 2)) for name in ("executing", "hook", "complete")),
        *((name, (5, 3)) for name in ("executing", "hook", "function", "complete")),
    ]


def test_steps_that_wait_are_announced_as_pending(queue, heard, add, fail):
    """Steps that wait send `pending` when they are enqueued, `enqueued` at their turn, or `skipped`."""
    results = queue.enqueue(fail.s() | add.s(1))
    done = queue.enqueue(add.s(1, 2) | add.s(3))
    assert heard.of(results[0]) == [SIGNAL_ENQUEUED]
    assert heard.of(results[1]) == [SIGNAL_PENDING]
    drain(queue)
    assert heard.story(results[1]) == f"{SIGNAL_PENDING} {SIGNAL_SKIPPED}"
    assert heard.story(done[1]) == "pending enqueued executing complete"


def test_a_handler_of_pending_alone_comes_before_the_start(queue, add):
    """A step is held until its `pending` is announced, also if no other signal has a handler."""
    seen = []
    queue.signal(SIGNAL_PENDING)(lambda signal, task: seen.append((signal, task.state, queue.run_next() is None)))
    results = queue.enqueue(add.s(1, 2) | add.s(3))
    assert seen == [(SIGNAL_PENDING, PENDING, True)]
    drain(queue)
    assert results.get() == [3, 6]


def test_each_row_of_a_step_that_waits_is_taken(queue, clock, add, fail):
    """A step that waits starts, is scheduled, revoked, expired or skipped: each row of the table that leaves `pending`."""
    later, late = add.s(3), add.s(3)
    later.eta, late.expires = clock.now() + 5, clock.now() + 1
    results = [
        queue.enqueue(add.s(1, 2) | later),
        queue.enqueue(add.s(1, 2) | add.s(3) | add.s(4)),
        queue.enqueue(fail.s() | add.s(3)),
    ]
    results[1][2].revoke()
    drain(queue)
    waits = fail.s()
    waits.eta = clock.now() + 10
    results.append(queue.enqueue(waits | late))
    clock.advance(5)
    drain(queue)
    taken = set()
    for result in (step for one in results for step in one):
        path = [None, *(record.state for record in result.history())]
        taken |= {(source, target) for source, target in pairwise(path) if PENDING in (source, target)}
    assert taken == {(row.source, row.target) for row in LIFECYCLE.transitions if PENDING in (row.source, row.target)}


# The whole ---------------------------------------------------------------------------------------------------------


def test_progress_and_state_of_the_whole(queue, add, fail):
    """`progress` counts tasks at rest; `state` is `executing`, or the first waiting, or the first failed, or `complete`."""
    seen = []

    @queue.task(name="look")
    def look(*_):
        seen.append((results.state, results.progress))

    results = queue.enqueue(add.s(1, 2) | look | add.s(1, 2))
    assert (results.state, results.progress) == (QUEUED, (0, 3))
    queue.run_next()
    assert (results.state, results.progress) == (PENDING, (1, 3))
    drain(queue)
    assert seen == [(EXECUTING, (1, 3))]
    assert (results.state, results.progress) == (COMPLETED, (3, 3))
    many = queue.enqueue(group([add.s(1, 2), fail.s(), add.s(1, 2) | add.s(3)]))
    drain(queue)
    assert (many.state, many.progress) == (ERROR, (4, 4))


def test_the_history_of_the_whole_is_in_order(queue, clock, add, handle):
    """`history` has the lines of all tasks, in the order of time, each with its task's id."""
    results = queue.enqueue((add.s(1, 2) | add.s(3)).error(handle))
    clock.advance(1)
    drain(queue)
    history = results.history()
    moments = [record.at for record in history]
    assert moments == sorted(moments)
    for result in (*results, *results.callbacks):
        own = [record.state for record in history if record.task_id == result.id]
        assert own == [record.state for record in result.history()]


def test_cancelling_the_whole(queue, add, handle):
    """`cancel` revokes what waits; what rests stays, and the error callback hears of it once."""
    results = queue.enqueue(group([add.s(1, 2) | add.s(3), add.s(4, 5)]).error(handle))
    queue.run_next()
    results.cancel()
    drain(queue)
    assert [queue.get(task_id).state for task_id in results.ids] == [COMPLETED, REVOKED, REVOKED]
    assert len(handle.errors) == 1
    results.cancel()  # all at rest: nothing is left to cancel


def test_the_last_step_is_canceled_first(queue, add, monkeypatch):
    """The steps are canceled from the last to the first, so that none starts meanwhile."""
    results, order, cancel = queue.enqueue(add.s(1, 2) | add.s(3) | add.s(4)), [], queue.engine.cancel
    monkeypatch.setattr(queue.engine, "cancel", lambda task_id: (order.append(task_id), cancel(task_id)))
    results.cancel()
    assert order == [result.id for result in reversed(results)]


def test_cancelling_a_chord_cancels_its_members(queue, add, total):
    """`cancel` of a chord's handle cancels members and callback."""
    result = queue.enqueue(chord([add.s(1, 2), add.s(3, 4)], total))
    result.cancel()
    drain(queue)
    assert {queue.get(task_id).state for task_id in result.whole.ids} == {REVOKED}


def test_a_running_step_is_canceled(live):
    """`cancel` cancels the step that runs, and the steps after it do not start."""
    queue = live()

    @queue.task(name="cancel", context=True)
    def cancel(task):
        results.cancel()
        assert queue.get(task.id).canceling
        raise TaskCanceled  # as its worker would

    then = queue.task(name="then")(lambda *args: args)
    results = queue.enqueue(cancel.s() | then | then)
    drain(queue)
    assert [result.state for result in results] == [CANCELED, REVOKED, REVOKED]


def test_revoking_the_whole(queue, add):
    """`revoke` keeps all tasks from starting."""
    results = queue.enqueue(group([add.s(1, 2), add.s(3, 4)]))
    results.revoke()
    drain(queue)
    assert {result.state for result in results} == {REVOKED}
