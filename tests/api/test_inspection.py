"""Inspection of tasks, and an operator's retry and flush."""

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from conftest import NOW, drain, states
from support.strategies import LAW

import lifecycle
from lifecycle import (
    LIFECYCLE,
    CancelExecution,
    ConfigurationError,
    IllegalTransition,
    RetryTask,
    TaskInterrupted,
    UnknownTask,
    group,
)


def test_counts_has_every_resting_or_moving_state(queue, clock, add):
    """`counts` has every state but `retrying`, in the table's order, with its number of tasks."""
    assert list(queue.counts()) == [state for state in LAW if state != "retrying"]
    assert set(queue.counts().values()) == {0}
    add(1, 2), add(1, "2"), add.schedule((1,), delay=9), add.schedule((1,), expires=1), add(5).revoke()
    drain(queue)
    clock.advance(2)
    add(1)
    found = {state: count for state, count in queue.counts().items() if count}
    assert found == {"queued": 1, "scheduled": 1, "complete": 2, "error": 1, "revoked": 1}


def test_tasks_lists_newest_first_by_state_and_page(queue, add):
    """`tasks` lists the newest tasks first, in one state, in several or in any, page by page."""
    ids = [add(n, 1).id for n in range(7)]
    failed = add(1, "1").id
    for _ in range(2):
        queue.run_next()
    add.schedule((1,), priority=9)
    while queue.run_next() and queue.get(failed).state != "error":
        pass
    waiting = add(9).id
    everything = [waiting, queue.tasks(limit=2)[1].id, failed, *ids[::-1]]
    assert [task.id for task in queue.tasks()] == everything
    assert [task.id for task in queue.tasks("error")] == [failed]
    assert [task.id for task in queue.tasks(["error", "queued"])] == [waiting, failed]
    assert queue.tasks([]) == []
    assert queue.tasks("expired") == []
    pages, last = [], None
    while page := queue.tasks(limit=3, before=last):
        assert len(page) <= 3
        pages += [task.id for task in page]
        last = page[-1]
    assert pages == everything
    assert queue.tasks("queued")[0].args == (9,)
    with pytest.raises(ConfigurationError, match=r"no state 'broken': there are queued, "):
        queue.tasks("broken")


def test_tasks_are_found_by_function_and_time(queue, clock, add):
    """`tasks` takes the name of a function, and a moment since which the tasks were enqueued; both together, too."""
    other = queue.task(name="other")(lambda: None)
    first, second = add(1, 1).id, other().id
    clock.advance(5)
    third, fourth = other().id, add(1, 1).id
    drain(queue)
    assert [task.id for task in queue.tasks(name="other")] == [third, second]
    assert [task.id for task in queue.tasks("complete", name="other", limit=1)] == [third]
    assert [task.id for task in queue.tasks(since=clock.now())] == [fourth, third]
    assert [task.id for task in queue.tasks(since=datetime.fromtimestamp(clock.now(), UTC))] == [fourth, third]
    assert [task.id for task in queue.tasks(name=add.name, since=NOW)] == [fourth, first]
    assert queue.tasks(name="another") == queue.tasks(since=clock.now() + 1) == []
    with pytest.raises(ConfigurationError, match="since='noon': must be a datetime or UTC seconds"):
        queue.tasks(since="noon")


def test_enqueued_at_is_kept_through_retries(queue, clock, add):
    """`Task.enqueued_at` is the time of the enqueueing, before and after retries, and ``None`` before it."""
    task = add.s(1, "1")
    assert task.enqueued_at is None
    task.retries = 1
    queue.enqueue(task)
    assert task.enqueued_at == NOW
    clock.advance(5)
    drain(queue)
    assert [(one.attempt, one.enqueued_at) for one in queue.tasks()] == [(2, NOW)]


def test_history_of_a_task_that_polls_stays_short(queue, clock):
    """A task that asks for its retry hundreds of times keeps the beginning and the end of its history, numbered."""

    @queue.task()
    def poll():
        raise RetryTask(delay=10)

    result = poll()
    for _ in range(300):
        queue.run_next()
        clock.advance(10)
    history = result.history()
    assert len(history) < 85
    assert sum(1 + record.left_out for record in history) == result.task.version == 901
    assert [record.attempt for record in history[:6]] == [0, 1, 1, 1, 2, 2]
    assert [record.attempt for record in history[-4:]] == [299, 300, 300, 300]
    (gap,) = [number for number, record in enumerate(history) if record.left_out]
    rows = {(row.source and row.source.name, row.target.name) for row in LIFECYCLE.transitions}
    assert {
        (before.state, after.state) for part in (history[:gap], history[gap:]) for before, after in pairwise(part)
    } <= rows


def test_get_returns_a_copy_and_history_a_record_for_each_transition(queue, clock, add):
    """`get` returns a copy of the task, `history` a record for each transition: state, time, worker, attempt."""
    result = add(1, 2)
    task = queue.get(result.id)
    assert (task.id, task.name, task.args, task.state, task.attempt) == (result.id, add.name, (1, 2), "queued", 0)
    task.priority, task.state = 99, "complete"
    assert (queue.get(result.id).priority, queue.get(result.id).state) == (0, "queued")
    assert result.task.id == result.id
    clock.advance(5)
    queue.run_next()
    history = queue.history(result.id)
    assert [(record.state, record.at - NOW, record.attempt) for record in history] == [
        ("queued", 0, 0), ("executing", 5, 1), ("complete", 5, 1),
    ]  # fmt: skip
    assert history[0].worker != history[1].worker
    assert history[1].worker == history[2].worker == queue.get(result.id).worker
    assert history == result.history()
    assert task.state == "complete"
    for look in (queue.get, queue.history, queue.result, queue.retry):
        with pytest.raises(UnknownTask, match="nobody"):
            look("nobody")


def test_flush_empties_the_queue(queue, heard, add):
    """`flush` deletes tasks, results, revocations and locks; ids can be used again, and the queue goes on working."""
    results = [add.schedule((1,), id="a"), add.schedule((2,), id="b", delay=5)]
    queue.run_next()
    queue.revoke_by_id("c")
    add.revoke()
    queue.lock_task("lock").acquire()
    queue.flush()
    assert not any(queue.counts().values())
    assert queue.tasks() == []
    assert not add.is_revoked()
    assert not queue.is_revoked("c")
    assert not queue.is_locked("lock")
    assert queue.run_next() is None
    with pytest.raises(UnknownTask):
        results[0].get()
    again = add.schedule((3,), id="a")
    assert queue.run_next().id == "a"
    assert again.get() == 3


def test_outcome_of_flushed_task_is_dropped(queue, heard):
    """The outcome of a task that was flushed while it ran is dropped, even if a new task has the same id."""

    @queue.task(context=True)
    def flushed(n, task=None):
        if n == 1:
            queue.flush()
            flushed.schedule((2,), id=task.id)
        return n

    result = flushed.schedule((1,), id="a")
    queue.run_next()
    assert [record.state for record in result.history()] == ["queued"]
    assert result.get() is None
    queue.run_next()
    assert result.get() == 2


@pytest.mark.parametrize("state", [state for state in LAW if state not in ("retrying",)])
def test_operator_can_retry_only_tasks_that_rest_in_an_outcome(make, clock, state):
    """An operator's retry runs a task that rests in an outcome again, at once; in any other state it raises."""
    queue = make(max_interruptions=0)
    ends = {
        "error": ValueError, "timeout": "TaskTimeout", "locked": "TaskLockedException", "canceled": CancelExecution,
        "rate-limited": "RateLimitExceeded", "interrupted": TaskInterrupted,
    }  # fmt: skip

    @queue.task(context=True, retry_delay=50)
    def ends_so(task=None):
        if state == "executing":
            with pytest.raises(IllegalTransition, match="executing: cannot retry"):
                queue.retry(task.id)
        if task.attempt > 1 or state not in ends:
            return
        ending = getattr(lifecycle, ends[state]) if isinstance(ends[state], str) else ends[state]
        raise ending("key", 0, False) if state == "rate-limited" else ending

    result = ends_so.schedule(delay=5 if state == "scheduled" else None, expires=1 if state == "expired" else None)
    if state in ("pending", "skipped"):
        last = queue.task(name="last")(lambda error: None)
        result = queue.enqueue(group([ends_so.s().error(last)])).callbacks[0]
        for _ in range(3 if state == "skipped" else 0):
            queue.run_next()
    clock.advance(1)
    if state == "revoked":
        result.revoke()
    if state != "queued":
        queue.run_next()
    before = states(result)
    if state in ends:
        assert queue.retry(result.id).id == result.id
        assert states(result) == f"{before} retrying queued"
        assert queue.run_next().state == "complete"
    else:
        with pytest.raises(IllegalTransition) as caught:
            queue.retry(result.id)
        now = "complete" if state == "executing" else state
        assert (caught.value.state, caught.value.trigger) == (now, "retry")
        assert "retry" not in caught.value.allowed
        assert states(result) == before


def test_second_of_two_retries_at_once_raises(queue, heard, monkeypatch):
    """The second of two retries of one task at the same time raises, and only one retry is announced."""
    exchange = queue.storage.exchange

    def after_another(done, claimant):
        monkeypatch.undo()
        queue.retry(result.id)
        return exchange(done, claimant)

    result = queue.task(name="fails")(lambda: 1 / 0)()
    queue.run_next()
    monkeypatch.setattr(queue.storage, "exchange", after_another)
    with pytest.raises(IllegalTransition, match="queued: cannot retry"):
        queue.retry(result.id)
    assert heard.story(result) == "enqueued executing error retrying enqueued"
