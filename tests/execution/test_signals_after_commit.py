"""Persist, then announce: promises of a signal about the store, the result, and the history of the task."""

from collections import Counter
from itertools import pairwise

import pytest
from conftest import KINDS, LEASE, Heard, drain, failure
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import LAW, patient
from support.task_endings import ENDINGS, ending, ending_function

from lifecycle import LIFECYCLE, SIGNAL_COMPLETE, SIGNAL_ERROR, StorageUnavailable, TaskException
from lifecycle.execution.worker import Worker

# Persist, then announce ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("many", [False, True])
def test_task_that_is_not_stored_is_not_announced(queue, heard, add, monkeypatch, many):
    """A store that is down sends no `enqueued`: the caller gets the error, and no handler is called."""

    def down(*args):
        raise StorageUnavailable("gone")

    monkeypatch.setattr(queue.storage, "enqueue", down)
    with pytest.raises(StorageUnavailable):
        add.map([(1, 2), (3, 4)]) if many else add(1, 2)
    assert heard == []


def test_outcome_that_is_not_stored_is_not_announced(queue, heard, clock, add, monkeypatch):
    """An outcome that could not be stored is not announced: the task is recovered when its lease has lapsed."""
    result = add(1, 2)
    exchange = queue.storage.exchange

    def half_down(done, claimant):
        if done:
            raise StorageUnavailable("gone")
        return exchange(done, claimant)

    with monkeypatch.context() as broken:
        broken.setattr(queue.storage, "exchange", half_down)
        with pytest.raises(StorageUnavailable):
            queue.run_next()
    assert heard.story(result) == "enqueued executing"
    clock.advance(LEASE)
    drain(queue)
    assert heard.story(result) == "enqueued executing interrupted enqueued executing complete"


def test_worker_that_waits_for_the_store_announces_the_outcome_once(queue, heard, add, monkeypatch):
    """A worker that waits for an unavailable store commits the outcome later, once, and then announces it."""
    exchange, failures = queue.storage.exchange, iter([True, True])
    waits = []

    def down_twice(done, claimant):
        if done and next(failures, False):
            raise StorageUnavailable("gone")
        return exchange(done, claimant)

    monkeypatch.setattr(queue.storage, "exchange", down_twice)
    worker = Worker(queue.engine, "patient", lambda error: waits.append(str(error)) or True)
    result = add(1, 2)
    worker.run_next()
    assert waits == ["gone", "gone"]
    assert heard.story(result) == "enqueued executing complete"


@pytest.mark.parametrize("how", ENDINGS)
@pytest.mark.parametrize("retries", [0, 1])
@pytest.mark.parametrize("retry_delay", [0, 10])
def test_handler_finds_the_transition_in_the_store(queue, how, retries, retry_delay):
    """In a handler the history has the transition; at the last signal of a step the stored task is in that state."""
    faults, result = [], None

    @queue.signal()
    def check(signal, task, exc=None):
        state = next(state for state, (name, *_) in LAW.items() if name == signal)
        history = [record.state for record in queue.history(task.id)]
        seen[task.id] += 1
        if task.state != state:
            faults.append((signal, "the task says", task.state))
        if history[: seen[task.id]][-1:] != [state]:
            faults.append((signal, "history says", history))
        if len(history) == seen[task.id] and queue.get(task.id).state != state:
            faults.append((signal, "the store says", queue.get(task.id).state))
        if signal in ("enqueued", "scheduled", "executing", "complete") and len(history) != seen[task.id]:
            faults.append((signal, "it is not the path's last", history))

    seen = Counter()
    result = ending(queue, how, retries=retries, retry_delay=retry_delay)()
    for _ in range(6):
        queue.run_next()
        queue.engine.clock.advance(5)
    assert faults == []
    assert seen[result.id] == len(result.history())


def test_expired_and_revoked_are_stored_before_they_are_announced(queue, clock, add):
    """In a handler of `expired` or `revoked` the store has the task in that state."""
    seen = []

    @queue.signal()
    def look(signal, task, exc=None):
        seen.append((signal, queue.get(task.id).state))

    add.schedule((1, 2), expires=5)
    add.schedule((1, 2), delay=9).revoke()
    clock.advance(5)
    drain(queue)
    assert seen == [("enqueued", "queued")] * 2 + [("revoked", "revoked"), ("expired", "expired")]


# Results in handlers -------------------------------------------------------------------------------------------------


def test_handler_can_read_the_result_or_the_error(queue):
    """A handler of `complete` can read the result, a handler of `error` the error, which is its argument as well."""
    read = []
    error = ValueError("no")

    @queue.signal(SIGNAL_COMPLETE)
    def complete(signal, task):
        read.append(queue.result(task.id, blocking=True))

    @queue.signal(SIGNAL_ERROR)
    def failed(signal, task, exc):
        try:
            queue.result(task.id, blocking=True)
        except TaskException as failed_result:
            read.append((failed_result.metadata["error"], failed_result.metadata["attempt"], exc))

    @queue.task(context=True, retries=1)
    def flaky(task=None):
        if task.attempt == 1:
            raise error
        return 5

    flaky()
    drain(queue)
    assert read == [("ValueError('no')", 1, error), 5]


@pytest.mark.parametrize("how", [how for how in ENDINGS if how not in ("complete", "interrupted", "retrying")])
def test_handler_of_any_outcome_can_read_it(queue, how):
    """A handler of any outcome can read that outcome."""
    read = []

    @queue.signal(how)
    def note(signal, task, exc=None):
        read.append(failure(queue.handle(task.id))["state"])

    ending(queue, how)()
    queue.run_next()
    assert read == [how]


# History -------------------------------------------------------------------------------------------------------------


@pytest.mark.untraced
@patient
@given(st.sampled_from(KINDS), st.lists(st.sampled_from(sorted(ENDINGS)), min_size=1, max_size=6), st.integers(0, 2))
def test_history_equals_the_announced_transitions(new, kind, endings, retries):
    """The history has each announced transition: states, times in order, worker, and attempt."""
    with new(kind, max_interruptions=1) as queue:
        heard, clock = Heard(queue), queue.engine.clock
        announced, results = {}, []
        queue.signal()(
            lambda signal, task, exc=None: announced.setdefault(task.id, []).append(
                (task.state, task.worker, task.attempt)
            )
        )
        for n, how in enumerate(endings):
            results.append(queue.task(name=f"{how} {n}", context=True, retries=retries)(ending_function(how))())
        for _ in range(4):
            drain(queue)
            clock.advance(5)
        for result in results:
            history = result.history()
            assert heard.story(result)
            assert [(record.state, record.worker, record.attempt) for record in history] == announced[result.id]
            assert all(early.at <= late.at for early, late in pairwise(history))
            path = [None, *(record.state for record in history)]
            assert all(late in LIFECYCLE.steps[None] or early for early, late in pairwise(path))
            assert queue.get(result.id).version == len(history)
