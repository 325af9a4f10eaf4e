"""Order of signals: no worker can claim a task before the signals of its last transition are sent."""

import sys
from collections import Counter

import pytest
from conftest import LEASE, Heard, drain, states
from support.task_endings import ending

from lifecycle import (
    SIGNAL_ENQUEUED,
    SIGNAL_ERROR,
    SIGNAL_EXECUTING,
    SIGNAL_INTERRUPTED,
    SIGNAL_RETRYING,
    SIGNAL_SCHEDULED,
)
from lifecycle.execution.worker import Worker

HELD = {  # signals: a call that leads there
    SIGNAL_ENQUEUED: lambda queue: ending(queue, "complete")(),
    SIGNAL_SCHEDULED: lambda queue: ending(queue, "complete").schedule(delay=5),
    f"{SIGNAL_ERROR} {SIGNAL_RETRYING} {SIGNAL_ENQUEUED}": lambda queue: ending(queue, "error", retries=1)(),
    f"{SIGNAL_ERROR} {SIGNAL_RETRYING} {SIGNAL_SCHEDULED}": lambda queue: ending(
        queue, "error", retries=1, retry_delay=5
    )(),
    f"{SIGNAL_RETRYING} {SIGNAL_SCHEDULED}": lambda queue: ending(queue, "retrying")(),
    f"{SIGNAL_INTERRUPTED} {SIGNAL_ENQUEUED}": lambda queue: ending(queue, "interrupted")(),
}


@pytest.mark.parametrize("path", HELD)
def test_no_worker_claims_a_task_before_its_signals_are_sent(queue, clock, path):
    """While the signals of a task are sent no other worker can claim it; right after, a worker can."""
    heard, tried = Heard(queue), []
    other = Worker(queue.engine, "other")

    @queue.signal(*path.split())
    def try_it(signal, task, exc=None):
        if task.attempt <= 1 and len(tried) < 20:
            tried.append((signal, other.run_next(clock.now() + 10)))

    result = HELD[path](queue)
    queue.run_next()
    assert {signal for signal, _ in tried} >= set(path.split())
    assert not any(task for _, task in tried)
    assert other.run_next(clock.now() + 10) is not None or result.state == "complete"
    assert heard.story(result).endswith("executing complete")


@pytest.mark.parametrize("path", [SIGNAL_INTERRUPTED, SIGNAL_ENQUEUED, SIGNAL_RETRYING])
@pytest.mark.parametrize("by", ["recovery", "operator"])
def test_no_worker_claims_a_recovered_or_retried_task_before_its_signals(queue, clock, path, by):
    """While the signals of a task that was recovered, or retried by an operator, are sent, no worker can claim it."""
    heard, tried = Heard(queue), []
    other = Worker(queue.engine, "other")
    if by == "recovery":
        result = ending(queue, "complete")()
        queue.signal(SIGNAL_EXECUTING)(kill := lambda signal, task: sys.exit())
        with pytest.raises(SystemExit):
            queue.run_next()
        queue.disconnect_signal(kill)
        clock.advance(LEASE)
    else:
        result = ending(queue, "error")()
        queue.run_next()
    queue.signal(path)(lambda signal, task: tried.append(other.run_next()))
    if by == "recovery":
        queue.engine.recover()
        assert heard.story(result) == "enqueued executing interrupted enqueued"
    else:
        queue.retry(result.id)
        assert heard.story(result) == "enqueued executing error retrying enqueued"
    assert not any(tried)
    assert other.run_next().id == result.id
    assert heard.story(result).endswith("executing complete")


def test_no_task_of_a_batch_starts_before_all_are_announced(queue, heard):
    """No task of a batch starts before the signals of the whole batch are sent."""
    other, tried = Worker(queue.engine, "other"), []
    queue.signal(SIGNAL_ENQUEUED)(lambda signal, task: tried.append(other.run_next()))
    ending(queue, "complete").map([()] * 3)
    assert tried == [None] * 3
    assert [signal for signal, *_ in heard] == ["enqueued"] * 3
    assert len(drain(queue)) == 3


def test_hold_of_dead_announcer_ends_after_a_lease(queue, clock, add):
    """A task whose announcer died before releasing it is held for one lease."""
    queue.signal(SIGNAL_ENQUEUED)(kill := lambda signal, task: sys.exit())
    task = add.s(1, 2)
    with pytest.raises(SystemExit):
        queue.enqueue(task)
    queue.disconnect_signal(kill)
    result = queue.handle(task.id)
    assert queue.run_next() is None
    clock.advance(LEASE - 0.1)
    assert queue.run_next() is None
    assert queue.storage.next_due() == pytest.approx(clock.now() + 0.1)
    clock.advance(0.1)
    assert queue.run_next().id == task.id
    assert states(result) == "queued executing complete"


@pytest.mark.parametrize("place", ["error", "retrying"])
def test_frozen_and_overtaken_announcer_sends_no_more_signals(queue, heard, clock, place):
    """A worker that is frozen past the hold between two signals, and overtaken, sends no more signals of the task."""
    other = Worker(queue.engine, "other")
    result = ending(queue, "error", retries=1)

    @queue.signal(place)
    def freeze(signal, task, exc=None):
        clock.advance(LEASE)
        queue.engine.recover()
        assert other.run_next().state == "complete"

    result = result()
    queue.run_next()
    sent = heard.of(result)
    assert sent[: sent.index(place) + 1] == ["enqueued", "executing", "error", "retrying"][: sent.index(place) + 1]
    assert sent[sent.index(place) + 1 :] == ["executing", "complete"]
    assert states(result) == "queued executing error retrying queued executing complete"


def test_worker_frozen_after_its_claim_and_replaced_does_not_run_the_task(queue, heard, clock, add, monkeypatch):
    """A worker that is frozen right after its claim, and replaced, sends no signal of the task and does not run it."""
    exchange, worker = queue.storage.exchange, Worker(queue.engine, "slow")
    ran = []
    queue.pre_execute("note")(lambda task: ran.append(task.worker))

    def freezes(done, claimant):
        found = exchange(done, claimant)
        if claimant is not None and claimant.worker == "slow":
            clock.advance(LEASE)
            monkeypatch.undo()
            queue.run_next()
        return found

    result = add(1, 2)
    monkeypatch.setattr(queue.storage, "exchange", freezes)
    worker.run_next()
    assert states(result) == "queued executing interrupted queued executing complete"
    assert heard.of(result) == ["enqueued", "interrupted", "enqueued", "executing", "complete"]
    assert len(ran) == 1
    assert ran != ["slow"]


def test_slow_announcer_that_was_not_replaced_sends_all_signals(queue, heard, clock):
    """A worker whose lease lapses while it announces, and that was not replaced, sends all signals."""
    result = ending(queue, "error", retries=1)()
    queue.signal(SIGNAL_ERROR)(lambda signal, task, exc: clock.advance(LEASE))
    queue.run_next()
    assert heard.story(result) == "enqueued executing error retrying enqueued"


class CallCounter:
    """Counts the calls of a store."""

    def __init__(self, queue, monkeypatch):
        self.calls = Counter()
        for name in ("enqueue", "exchange", "release", "recover", "extend"):
            monkeypatch.setattr(queue.storage, name, self.counting(name, getattr(queue.storage, name)))

    def counting(self, name, method):
        def counted(*args, **options):
            self.calls[name] += 1
            return method(*args, **options)

        return counted


@pytest.mark.parametrize(
    "listens", [[], ["complete"], ["executing", "error"], ["enqueued"], ["scheduled"], ["retrying"]]
)
def test_task_is_held_only_if_handlers_listen(queue, clock, monkeypatch, listens):
    """A task is held, and released with one call, only if there are handlers for its signals."""
    counter = CallCounter(queue, monkeypatch)
    for signal in listens:
        queue.signal(signal)(lambda signal, task, exc=None: held.append(queue.get(task.id).lease))
    held = []
    ends = ending(queue, "error", retries=1, retry_delay=5)
    result = ends()
    births = 1 * ("enqueued" in listens)
    assert counter.calls == Counter(enqueue=1) + Counter(release=births)
    queue.run_next()
    failures = 1 * bool({"error", "retrying", "scheduled"} & set(listens))
    assert counter.calls["release"] == births + failures
    clock.advance(5)
    queue.run_next()
    assert result.state == "complete"
    assert counter.calls["release"] == births + failures
    assert counter.calls["exchange"] == 4
    ends.schedule(delay=50)
    drain(queue)
    assert counter.calls["release"] == 2 * births + failures + ("scheduled" in listens)


@pytest.mark.parametrize("listens", [None, "complete", "enqueued"])
def test_retry_and_recovery_hold_tasks_only_if_handlers_listen(make, clock, monkeypatch, listens):
    """An operator's retry and recovery hold tasks only if there are handlers for their signals."""
    queue = make()
    failed, stopped = ending(queue, "error")(), ending(queue, "interrupted")
    queue.run_next()
    stopped()
    queue.signal(SIGNAL_EXECUTING)(kill := lambda signal, task: sys.exit())
    with pytest.raises(SystemExit):
        queue.run_next()
    queue.disconnect_signal(kill)
    if listens is not None:
        queue.signal(listens)(lambda signal, task: None)
    counter = CallCounter(queue, monkeypatch)
    queue.retry(failed.id)
    clock.advance(LEASE)
    queue.engine.recover()
    assert queue.counts()["queued"] == 2
    assert counter.calls["release"] == (2 if listens == "enqueued" else 0)
