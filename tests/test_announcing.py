"""Persist, then announce: what a signal promises about the store, about other signals, and about other workers.

And timeouts, which strike from outside: an attempt's end is announced once, and nothing strikes after it.
"""

import sys
import time
from collections import Counter
from itertools import pairwise

import pytest
from conftest import KINDS, Heard, drain, failure, states
from hypothesis import given
from hypothesis import strategies as st
from strategies import LAW, patient

from lifecycle import (
    LIFECYCLE,
    SIGNAL_COMPLETE,
    SIGNAL_ENQUEUED,
    SIGNAL_ERROR,
    SIGNAL_EXECUTING,
    SIGNAL_INTERRUPTED,
    SIGNAL_RETRYING,
    SIGNAL_SCHEDULED,
    SIGNALS,
    CancelExecution,
    RateLimitExceeded,
    RetryTask,
    StorageUnavailable,
    TaskException,
    TaskInterrupted,
    TaskLockedException,
    TaskTimeout,
)
from lifecycle.worker import Worker

LEASE = 30.0


@pytest.fixture
def add(queue):
    @queue.task()
    def add(a, b):
        return a + b

    return add


ENDINGS = {
    "complete": None,
    "error": ValueError("no"),
    "timeout": TaskTimeout(),
    "locked": TaskLockedException(),
    "canceled": CancelExecution(),
    "rate-limited": RateLimitExceeded("api", 5, retry=False),
    "interrupted": TaskInterrupted(),
    "retrying": RetryTask(delay=5),
}


def ending(queue, how, **options):
    """A task whose first attempt ends so."""

    @queue.task(context=True, name=how, **options)
    def ends(task=None):
        if task.attempt == 1 and ENDINGS[how] is not None:
            raise ENDINGS[how]
        return "done"

    return ends


# 1. Persist, then announce -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("many", [False, True])
def test_what_is_not_stored_is_not_announced(queue, heard, add, monkeypatch, many):
    """A store that is down sends no `enqueued`: the caller is told, and the handlers are not."""

    def down(*args):
        raise StorageUnavailable("gone")

    monkeypatch.setattr(queue.storage, "enqueue", down)
    with pytest.raises(StorageUnavailable):
        add.map([(1, 2), (3, 4)]) if many else add(1, 2)
    assert heard == []


def test_outcomes_that_are_not_stored_are_not_announced(queue, heard, clock, add, monkeypatch):
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


def test_who_waits_for_the_store(queue, heard, add, monkeypatch):
    """A worker that is told to wait for the store stores the outcome when it is back, once, and then announces it."""
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
def test_the_store_knows_first(queue, how, retries, retry_delay):
    """When a signal is heard, the history has it; if it is its path's last, the task is in that state, for everybody."""
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


def test_expired_and_revoked_are_stored_first(queue, clock, add):
    """So it is for tasks that never run."""
    seen = []

    @queue.signal()
    def look(signal, task, exc=None):
        seen.append((signal, queue.get(task.id).state))

    add.schedule((1, 2), expires=5)
    add.schedule((1, 2), delay=9).revoke()
    clock.advance(5)
    drain(queue)
    assert seen == [("enqueued", "queued")] * 2 + [("revoked", "revoked"), ("expired", "expired")]


# 2. The result can be read in the handler ---------------------------------------------------------------------------


def test_results_in_handlers(queue):
    """The handler of `complete` can read the result, that of `error` the error, which it is also given."""
    read = []
    error = ValueError("no")

    @queue.signal(SIGNAL_COMPLETE)
    def complete(signal, task):
        read.append(queue.result(task.id, blocking=True))

    @queue.signal(SIGNAL_ERROR)
    def failed(signal, task, exc):
        try:
            queue.result(task.id, blocking=True)
        except TaskException as told:
            read.append((told.metadata["error"], told.metadata["attempt"], exc))

    @queue.task(context=True, retries=1)
    def flaky(task=None):
        if task.attempt == 1:
            raise error
        return 5

    flaky()
    drain(queue)
    assert read == [("ValueError('no')", 1, error), 5]


@pytest.mark.parametrize("how", [how for how in ENDINGS if how not in ("complete", "interrupted", "retrying")])
def test_outcomes_in_handlers(queue, how):
    """So can the handler of any outcome."""
    read = []

    @queue.signal(how)
    def note(signal, task, exc=None):
        read.append(failure(queue.handle(task.id))["state"])

    ending(queue, how)()
    queue.run_next()
    assert read == [how]


# 3. Order, across workers -------------------------------------------------------------------------------------------

HELD = {  # signal: what leads there
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
def test_nobody_overtakes_a_signal(queue, clock, path):
    """While it is told how a task came to wait, no other worker can have it; right after, it can."""
    heard, tried = Heard(queue), []
    other = Worker(queue.engine, "other")

    @queue.signal(*path.split())
    def try_it(signal, task):
        if task.attempt <= 1 and len(tried) < 20:
            tried.append((signal, other.run_next(clock.now() + 10)))

    queue.disconnect_signal(try_it, SIGNAL_ERROR)
    if SIGNAL_ERROR in path:
        queue.signal(SIGNAL_ERROR)(lambda signal, task, exc: try_it(signal, task))
    result = HELD[path](queue)
    queue.run_next()
    assert {signal for signal, _ in tried} >= set(path.split())
    assert not any(task for _, task in tried)
    assert other.run_next(clock.now() + 10) is not None or result.state == "complete"
    assert heard.story(result).endswith("executing complete")


@pytest.mark.parametrize("path", [SIGNAL_INTERRUPTED, SIGNAL_ENQUEUED, SIGNAL_RETRYING])
@pytest.mark.parametrize("by", ["recovery", "operator"])
def test_nor_those_of_others(queue, clock, path, by):
    """The same goes for what recovery puts back, and for what an operator retries."""
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


def test_enqueued_together(queue, heard):
    """Of tasks enqueued together none starts before all are announced."""
    other, tried = Worker(queue.engine, "other"), []
    queue.signal(SIGNAL_ENQUEUED)(lambda signal, task: tried.append(other.run_next()))
    ending(queue, "complete").map([()] * 3)
    assert tried == [None] * 3
    assert [signal for signal, *_ in heard] == ["enqueued"] * 3
    assert len(drain(queue)) == 3


def test_the_hold_ends_with_its_announcer(queue, clock, add):
    """Should the announcer die before it has let go of a task, the task is held no longer than a lease."""
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
def test_who_was_frozen_says_nothing_more(queue, heard, clock, place):
    """Who is frozen while it tells of a task, past the hold, and has been overtaken, tells no more of it."""
    other = Worker(queue.engine, "other")
    result = ending(queue, "error", retries=1)

    @queue.signal(place)
    def freeze(signal, task, exc=None):
        clock.advance(LEASE)
        queue.engine.recover()
        assert other.run_next().state == "complete"

    result = result()
    queue.run_next()
    told = heard.of(result)
    assert told[: told.index(place) + 1] == ["enqueued", "executing", "error", "retrying"][: told.index(place) + 1]
    assert told[told.index(place) + 1 :] == ["executing", "complete"]
    assert states(result) == "queued executing error retrying queued executing complete"


def test_frozen_between_claim_and_announcement(queue, heard, clock, add, monkeypatch):
    """A worker that is frozen right after its claim, and replaced, says nothing of the task and does not run it."""
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


def test_the_lease_is_over_but_nobody_came(queue, heard, clock):
    """A worker that is slow to tell, and was not replaced, tells all."""
    result = ending(queue, "error", retries=1)()
    queue.signal(SIGNAL_ERROR)(lambda signal, task, exc: clock.advance(LEASE))
    queue.run_next()
    assert heard.story(result) == "enqueued executing error retrying enqueued"


class Spy:
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
def test_nobody_listens(queue, clock, monkeypatch, listens):
    """What nobody listens to costs nothing: no hold, and no call to let go; else one call to let go of each held task."""
    spy = Spy(queue, monkeypatch)
    for signal in listens:
        queue.signal(signal)(lambda signal, task, exc=None: held.append(queue.get(task.id).lease))
    held = []
    ends = ending(queue, "error", retries=1, retry_delay=5)
    result = ends()
    births = 1 * ("enqueued" in listens)
    assert spy.calls == Counter(enqueue=1) + Counter(release=births)
    queue.run_next()
    failures = 1 * bool({"error", "retrying", "scheduled"} & set(listens))
    assert spy.calls["release"] == births + failures
    clock.advance(5)
    queue.run_next()
    assert result.state == "complete"
    assert spy.calls["release"] == births + failures
    assert spy.calls["exchange"] == 4
    ends.schedule(delay=50)
    drain(queue)
    assert spy.calls["release"] == 2 * births + failures + ("scheduled" in listens)


@pytest.mark.parametrize("listens", [None, "complete", "enqueued"])
def test_nobody_listens_to_operators(make, clock, monkeypatch, listens):
    """Nor does an operator's retry, nor recovery, hold what nobody listens to."""
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
    spy = Spy(queue, monkeypatch)
    queue.retry(failed.id)
    clock.advance(LEASE)
    queue.engine.recover()
    assert queue.counts()["queued"] == 2
    assert spy.calls["release"] == (2 if listens == "enqueued" else 0)


# 4. Handlers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", SIGNALS)
def test_handlers_that_raise(make, clock, caplog, signal):
    """A handler that raises on any signal is logged, and changes nothing: for other handlers, or for the task."""
    queue = make(max_interruptions=1)
    before, calm = Heard(queue), make(name="calm", max_interruptions=1)
    twins = Heard(calm)

    @queue.signal(signal)
    def broken(signal, task, exc=None):
        raise RuntimeError("handler")

    after = Heard(queue)
    for each in (queue, calm):
        for how in ENDINGS:
            each.task(name=how, context=True, retries=1, retry_delay=5)(ending_body(how))()
        each.tasks()[-1]
        each.handle(each.task(name="revoked")(lambda: None).schedule(delay=3).id).revoke()
        each.task(name="expired")(lambda: None).schedule(delay=9, expires=4)
    for _ in range(12):
        for each in (queue, calm):
            drain(each)
        clock.advance(5)

    def told(heard):
        order = list(dict.fromkeys(task_id for _, task_id, _ in heard))
        return [[name for name, task_id, _ in heard if task_id == one] for one in order]

    assert told(before) == told(after) == told(twins)
    assert signal in {name for name, *_ in after}
    assert caplog.text.count("RuntimeError: handler") == sum(name == signal for name, *_ in after)


def ending_body(how):
    def ends(task=None):
        if how == "interrupted":
            raise TaskInterrupted
        if task.attempt == 1 and ENDINGS[how] is not None:
            raise ENDINGS[how]

    return ends


@pytest.mark.parametrize("signal", [SIGNAL_ENQUEUED, SIGNAL_EXECUTING, SIGNAL_ERROR, SIGNAL_SCHEDULED])
def test_handlers_cannot_change_a_task(queue, heard, signal):
    """What a handler is given is a copy: what it changes there changes nothing."""

    @queue.signal(signal)
    def careless(signal, task, exc=None):
        task.retries, task.state, task.version, task.eta, task.id = 9, "complete", 77, 0.0, "another"
        task.worker, task.attempt, task.lease = "nobody", 50, None

    @queue.task(retries=1, retry_delay=5)
    def fails():
        raise ValueError

    result = fails()
    for _ in range(3):
        queue.run_next()
        queue.engine.clock.advance(5)
    assert states(result) == "queued executing error retrying scheduled executing error"
    assert heard.of(result) == ["enqueued", "executing", "error", "retrying", "scheduled", "executing", "error"]


@pytest.mark.parametrize("who", ["function", "hook"])
def test_nobody_else_can_change_a_task(queue, heard, who):
    """Nor can a hook, or the function itself."""

    def careless(task=None):
        task.retries, task.state, task.version, task.attempt = 9, "complete", 77, 50

    @queue.task(retries=1, context=True)
    def fails(task=None):
        if who == "function":
            careless(task)
        raise ValueError

    if who == "hook":
        queue.pre_execute("careless")(careless)
        queue.post_execute("careless")(lambda task, value, exc: careless(task))
    result = fails()
    drain(queue)
    assert heard.story(result) == "enqueued executing error retrying enqueued executing error"


def test_handlers_may_use_the_queue(queue, heard, add):
    """A handler may call tasks, revoke, look, and even run what is next."""
    ran = []

    @queue.task()
    def note(what):
        ran.append(what)

    @queue.signal(SIGNAL_COMPLETE)
    def follow(signal, task):
        if task.name == add.name:
            note("revoked").revoke()
            note(queue.result(task.id))
            queue.run_next(), queue.run_next()

    result = add(1, 2)
    queue.run_next()
    assert ran == [3]
    assert heard.story(result) == "enqueued executing complete"
    assert queue.counts()["revoked"] == 1


# 7. History ---------------------------------------------------------------------------------------------------------


@patient
@given(st.sampled_from(KINDS), st.lists(st.sampled_from(sorted(ENDINGS)), min_size=1, max_size=6), st.integers(0, 2))
def test_history_is_what_was_announced(new, kind, endings, retries):
    """Each signal's transition can be looked up later: states, times in order, who made it, and which attempt it was."""
    with new(kind, max_interruptions=1) as queue:
        heard, clock = Heard(queue), queue.engine.clock
        told, results = {}, []
        queue.signal()(
            lambda signal, task, exc=None: told.setdefault(task.id, []).append((task.state, task.worker, task.attempt))
        )
        for n, how in enumerate(endings):
            results.append(queue.task(name=f"{how} {n}", context=True, retries=retries)(ending_body(how))())
        for _ in range(4):
            drain(queue)
            clock.advance(5)
        for result in results:
            history = result.history()
            assert heard.story(result)
            assert [(record.state, record.worker, record.attempt) for record in history] == told[result.id]
            assert all(early.at <= late.at for early, late in pairwise(history))
            path = [None, *(record.state for record in history)]
            assert all(late in LIFECYCLE.steps[None] or early for early, late in pairwise(path))
            assert queue.get(result.id).version == len(history)


# A busy worker ------------------------------------------------------------------------------------------------------


def go_on(times):
    """True so many times."""
    left = iter(range(times))
    return lambda: next(left, None) is not None


@pytest.mark.parametrize("count", [1, 5, 200])
def test_a_busy_worker(queue, heard, count):
    """A worker that works through a queue announces as one that takes a task at a time: in order, and what is stored."""
    ran, faults = [], []

    @queue.task(retries=1, context=True)
    def quick(n, task=None):
        ran.append((n, task.attempt))
        if n % 7 == 3 and task.attempt == 1:
            raise ValueError
        return n

    @queue.signal(SIGNAL_COMPLETE)
    def check(signal, task):
        if queue.result(task.id) != task.args[0]:
            faults.append(task)

    results = quick.map(range(count))
    Worker(queue.engine, "busy").work(lambda: True)
    assert [n for n, attempt in ran if attempt == 1] == list(range(count))
    assert faults == []
    for n, result in enumerate(results):
        flaky = " executing error retrying enqueued" * (n % 7 == 3)
        assert heard.story(result) == f"enqueued{flaky} executing complete"


def test_a_busy_worker_is_stopped(queue, heard):
    """A worker that is told to stop begins nothing more; what it has claimed besides is put back, or done, but not lost."""
    worker = Worker(queue.engine, "busy")
    stop_at, ran = 150, []

    @queue.task()
    def quick(n):
        ran.append(n)
        if len(ran) == stop_at:
            worker.interrupt()
            while True:
                pass
        return n

    results = quick.map(range(300))
    worker.work(lambda: len(ran) < stop_at)
    assert ran == list(range(stop_at))
    found = Counter(result.state for result in results)
    assert found == {"complete": stop_at - 1, "queued": 300 - stop_at + 1}
    stop_at = 0
    Worker(queue.engine, "next").work(lambda: True)
    assert sorted(ran) == sorted([*range(300), 149])
    for result in results:
        again = " executing interrupted enqueued" * ("interrupted" in heard.of(result))
        assert heard.story(result) == f"enqueued{again} executing complete"


def test_a_busy_worker_is_stuck(queue, heard):
    """Of a worker that is stuck, and all it has claimed: what it has done is settled, all else put back, and run again."""
    worker, at = Worker(queue.engine, "stuck"), []

    @queue.task()
    def quick(n):
        if n >= 150 and not at and queue.counts()["executing"] > 1:
            at.append(n)
            worker.put_back()
            at.append(queue.counts())
        return n

    results = quick.map(range(300))
    worker.work(lambda: True)
    stuck, counts = at
    assert (counts["complete"], counts["executing"], counts["queued"]) == (stuck, 0, 300 - stuck)
    for n, result in enumerate(results):
        again = " executing interrupted enqueued" * ("interrupted" in heard.of(result))
        assert heard.story(result) == f"enqueued{again} executing complete"
        assert result.get() == n
    assert "interrupted" in heard.of(results[stuck])


def test_a_busy_worker_that_may_not_go_on(queue, add):
    """A worker claims nothing once it may not go on."""
    results = add.map([(1, 1)] * 3)
    worker = Worker(queue.engine, "busy")
    worker.work(go_on(0))
    assert queue.counts()["queued"] == 3
    worker.work(go_on(2))
    assert [result.state for result in results] == ["complete", "complete", "queued"]


def test_slow_handlers(queue, add):
    """A worker whose handlers are slow claims its next task when they are done: an idle one can have it meanwhile."""
    other, seen = Worker(queue.engine, "other"), []

    @queue.signal(SIGNAL_COMPLETE)
    def slow(signal, task):
        if task.worker == "slow":
            time.sleep(0.002)
            seen.append(queue.counts()["executing"])
            if len(seen) == 2:
                other.run_next()

    results = add.map([(1, 1)] * 4)
    Worker(queue.engine, "slow").work(lambda: True)
    assert seen[1:] == [0, 0]
    assert [queue.get(result.id).worker for result in results][2] == "other"
