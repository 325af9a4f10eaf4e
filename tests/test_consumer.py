"""The consumer in this process: workers that start, share the work, stay apart, stop, and outlive what goes wrong."""

import asyncio
import gc
import logging
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from statistics import median

import psutil
import pytest
from processes import LEASE, LONG, PATIENCE, settled, states, until

from consumer import Consumer
from lifecycle import (
    SIGNAL_COMPLETE,
    SIGNAL_EXECUTING,
    SIGNAL_EXPIRED,
    SIGNAL_INTERRUPTED,
    SIGNAL_REVOKED,
    SIGNAL_SCHEDULED,
    ConfigurationError,
    StorageFull,
    StorageUnavailable,
    TaskException,
    TaskQueue,
    UnknownTask,
)
from lifecycle.storage.base import Claimant
from lifecycle.testing import VirtualClock

PUT_BACK = "queued executing interrupted queued"
PROMPT = 0.5
"""Seconds: half of what an idle worker waits at the most before it looks by itself."""


@pytest.fixture(params=["memory", "sqlite"])
def make(request, tmp_path):
    """Makes queues, each on a store of its own, and closes them."""
    queues = []

    def made(**options):
        url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/{len(queues)}.db"
        queues.append(TaskQueue(url, **({"lease": LONG} | options)))
        return queues[-1]

    yield made
    for queue in queues:
        queue.close()


@pytest.fixture
def queue(make):
    """A queue whose leases do not lapse while a test lasts."""
    return make()


on_sqlite = pytest.mark.parametrize("make", ["sqlite"], indirect=True)
"""For what takes its time, and has little to do with the kind of store."""


@contextmanager
def running(queue, workers=1, **options):
    """A consumer at work, sent home afterwards, whatever it does."""
    consumer = Consumer(queue, workers, **options)
    consumer.start()
    try:
        yield consumer
    finally:
        stop = threading.Thread(target=consumer.stop, args=(False,), daemon=True)
        stop.start()
        ended(stop)


class Gate:
    """Where tasks wait, and can be interrupted, until it is opened."""

    def __init__(self):
        self.opened = False
        self.waiting, self.left = [], []

    def open(self):
        self.opened = True

    def pass_through(self, who=None):
        self.waiting.append(who)
        try:
            while not self.opened:
                time.sleep(0.002)
        finally:
            self.left.append(who)

    def until(self, count):
        """Wait until so many have come."""
        until(lambda: len(self.waiting) >= count, f"number {count} at the gate")


def stopping(consumer, **options):
    """A thread that stops a consumer, once that has begun to stop."""
    thread = threading.Thread(target=consumer.stop, kwargs=options, daemon=True)
    thread.start()
    until(lambda: consumer._stop, "the stop")
    return thread


def ended(thread):
    """Wait for a thread's end."""
    thread.join(PATIENCE)
    assert not thread.is_alive()


def plus(a, b):
    return a + b


def now():
    return time.time()


def hands(consumer):
    """The threads of a consumer's workers that are alive."""
    return [one for one in threading.enumerate() if getattr(one, "_consumer", None) is consumer]


def logged(caplog, level, text):
    """What was logged at a level with a text in it."""
    return [one for one in caplog.records if one.levelno == level and text in one.getMessage()]


# Work ----------------------------------------------------------------------------------------------------------------


def test_starts_and_stops(queue):
    """A consumer runs what is enqueued from its start to its stop, and leaves no worker behind."""
    add = queue.task()(plus)
    early = add(1, 2)
    with running(queue, 2) as consumer:
        assert early.get(timeout=PATIENCE) == 3
        assert add(3, 4).get(timeout=PATIENCE) == 7
        consumer.stop()
        assert hands(consumer) == []
    assert states(add(5, 6)) == "queued"


def test_nobody_is_left_alone(queue):
    """As many tasks run at once as there are workers, all enqueued in one go."""
    barrier = threading.Barrier(4)
    meet = queue.task()(lambda number: barrier.wait(PATIENCE) and number)
    with running(queue, 4):
        results = meet.map(range(4))
        assert settled(queue, *results) == ["complete"] * 4
    assert len({result.task.worker for result in results}) == 4


def test_quick_tasks_are_shared(queue):
    """The same, if the function has been so quick that a worker starts several of its tasks at once."""
    barrier = threading.Barrier(4)
    meet = queue.task()(lambda wait: wait and barrier.wait(PATIENCE))
    with running(queue, 1):
        settled(queue, *meet.map([False] * 300))
    with running(queue, 4):
        settled(queue, *meet.map([False] * 1200))
        results = meet.map([True] * 4)
        assert settled(queue, *results) == ["complete"] * 4


def test_no_more_than_the_workers(queue):
    """Never do more tasks run at once than there are workers, and each runs once."""
    running_now, most, lock = [0], [0], threading.Lock()
    started = []

    @queue.task()
    def work(number):
        with lock:
            started.append(number)
            running_now[0] += 1
            most[0] = max(most[0], running_now[0])
        time.sleep(0.001)
        with lock:
            running_now[0] -= 1

    with running(queue, 3), ThreadPoolExecutor(4) as producers:
        results = list(producers.map(work, range(200)))
        assert settled(queue, *results) == ["complete"] * 200
    assert sorted(started) == list(range(200))
    assert most[0] <= 3


def test_woken_promptly(queue):
    """An idle worker is woken by a task that another thread enqueues, and does not wait until it would look itself."""
    note = queue.task()(now)
    waits = []
    with running(queue, 2):
        for _ in range(9):
            called = time.time()
            waits.append(note().get(timeout=PATIENCE) - called)
    assert median(waits) < PROMPT


def test_waits_for_an_eta(queue):
    """An idle worker starts a task when its ETA has come, not before, and not when it would look itself."""
    note = queue.task()(now)
    late = []
    with running(queue, 2):
        for _ in range(5):
            due = time.time() + 0.05
            late.append(note.schedule(delay=0.05).get(timeout=PATIENCE) - due)
    assert min(late) >= 0
    assert median(late) < PROMPT


def test_an_earlier_task_goes_first(queue):
    """A worker that waits for an ETA is woken by a task that is due before."""
    note = queue.task()(now)
    with running(queue):
        waits = []
        for delay in (0.9, 0.91, 0.92):
            later = note.schedule(delay=delay)
            until(lambda later=later: later.state == "scheduled", "the wait")
            called = time.time()
            waits.append(note().get(timeout=PATIENCE) - called)
    assert median(waits) < PROMPT


@on_sqlite
def test_idles(make, monkeypatch):
    """Idle workers look at the store about once a second, and write nothing."""
    queue = make(lease=2.0)  # four times a second the consumer itself looks for what is to be recovered
    looks, ticks = [], []
    exchange, recover = queue.storage.exchange, queue.storage.recover
    monkeypatch.setattr(queue.storage, "exchange", lambda *given: looks.append(given) or exchange(*given))
    monkeypatch.setattr(queue.storage, "recover", lambda *given, **more: ticks.append(0) or recover(*given, **more))
    with running(queue, 4):
        until(lambda: len(ticks) >= 4, "the fourth tick")
        assert len(looks) < 40  # 4 at the start and 1 a second; without a pause there would be thousands
        assert not any(done for done, _ in looks)


def test_async(queue):
    """`async` functions run in every worker, at the same time as others."""
    barrier = threading.Barrier(2)

    @queue.task()
    async def meet(number):
        await asyncio.sleep(0)
        barrier.wait(PATIENCE)
        return number

    with running(queue, 2):
        first, second = meet.map([1, 2])
        assert (first.get(timeout=PATIENCE), second.get(timeout=PATIENCE)) == (1, 2)


# Apart from one another ----------------------------------------------------------------------------------------------


def test_a_slow_task_delays_its_worker_only(queue):
    """A task that takes long keeps no other waiting, not even those that were started together with it."""
    gate = Gate()
    pause = queue.task()(lambda number, wait: (gate.pass_through() if wait else None, number)[1])
    with running(queue, 2):
        settled(queue, *pause.map((number, False) for number in range(400)))  # quick until now
        slow, *others = pause.map((number, number == 0) for number in range(60))
        assert settled(queue, *others) == ["complete"] * 59
        assert slow.state == "executing"
        gate.open()
        assert settled(queue, slow) == ["complete"]
    assert slow.task.attempt == 1


@pytest.mark.parametrize("kind", [SIGNAL_EXECUTING, SIGNAL_COMPLETE])
def test_a_slow_handler_delays_its_worker_only(queue, kind):
    """A handler that takes long keeps no other task waiting than its own, nor the worker's next one."""
    gate = Gate()
    number = queue.task()(lambda number, wait: number)
    queue.signal(kind)(lambda signal, task: gate.pass_through() if task.args[1] else None)
    with running(queue, 2):
        settled(queue, *number.map((one, False) for one in range(400)))  # quick until now
        slow, *others = number.map((one, one == 0) for one in range(60))
        gate.until(1)
        assert settled(queue, *others) == ["complete"] * 59
        assert slow.state == ("executing" if kind == SIGNAL_EXECUTING else "complete")
        gate.open()
        assert settled(queue, slow) == ["complete"]
    assert [result.get() for result in (slow, *others)] == list(range(60))
    assert slow.task.attempt == 1


def test_taken_back(queue):
    """What a stuck worker started along and has not begun is put back, and says so; nothing of it runs twice."""
    gate, ran, sent = Gate(), [], []
    run = queue.task()(lambda number, wait: (gate.pass_through() if wait else None, ran.append(number)))
    queue.signal()(lambda signal, task, exc=None: sent.append((task.id, signal)))
    with running(queue) as consumer:
        settled(queue, *run.map((-1, False) for _ in range(400)))
        results = run.map((number, number == 0) for number in range(10))
        gate.until(1)
        until(lambda: all(result.state == "queued" for result in results[1:]), "their return")
        gate.open()
        assert settled(queue, *results) == ["complete"] * 10
        consumer.stop()
    assert [number for number in ran if number >= 0] == list(range(10))
    for result in results:
        told = [signal for task_id, signal in sent if task_id == result.id]
        assert told[1:] == [state.replace("queued", "enqueued") for state in states(result).split()[1:]]
        assert states(result) in ("queued executing complete", f"{PUT_BACK} executing complete")


def test_handlers_and_hooks_that_raise(queue, caplog):
    """Hooks and handlers that raise are logged, and stop neither a task nor a worker."""

    def fail(*args):
        raise ValueError("uh-oh")

    queue.signal()(fail)
    for register in (queue.pre_execute, queue.post_execute, queue.on_startup, queue.on_shutdown):
        register("fail")(fail)
    add = queue.task()(plus)
    with running(queue) as consumer:
        results = [add(number, 1) for number in range(5)]
        assert [result.get(timeout=PATIENCE) for result in results] == [1, 2, 3, 4, 5]
        consumer.stop()
    assert len({result.task.worker for result in results}) == 1
    for what in ("on_startup hook", "pre-execute hook", "post-execute hook", "handler", "on_shutdown hook"):
        assert logged(caplog, logging.ERROR, what)
    assert not logged(caplog, logging.ERROR, "has died")


def test_failing_tasks(queue):
    """Whatever a task raises, `SystemExit` and `KeyboardInterrupt` included, its worker goes on."""

    @queue.task()
    def leave(how):
        raise {"exit": SystemExit(3), "base": BaseException("uh-oh"), "error": ValueError("uh-oh")}[how]

    add = queue.task()(plus)
    with running(queue):
        failed = leave.map(["exit", "base", "error"])
        assert settled(queue, *failed) == ["error"] * 3
        last = add(1, 2)
        assert last.get(timeout=PATIENCE) == 3
    assert len({result.task.worker for result in (*failed, last)}) == 1


@on_sqlite
@pytest.mark.parametrize("where", [SIGNAL_EXECUTING, SIGNAL_COMPLETE])
def test_a_dead_worker_is_replaced(make, caplog, where):
    """A worker that dies of what a handler raises is replaced; its task is put back when its lease has lapsed."""
    queue = make(lease=LEASE)
    deaths = []

    @queue.signal(where)
    def die(signal, task):
        if not deaths:
            deaths.append(task.id)
            raise SystemExit

    add = queue.task()(plus)
    with running(queue) as consumer:
        results = add.map([(number, 1) for number in range(5)])
        assert settled(queue, *results) == ["complete"] * 5
        assert len(hands(consumer)) == 1
    died = queue.handle(deaths[0])
    if where == SIGNAL_EXECUTING:
        assert states(died) == f"{PUT_BACK} executing complete"
        assert len({record.worker for record in died.history() if record.state == "executing"}) == 2
    else:
        assert states(died) == "queued executing complete"
    assert len(logged(caplog, logging.ERROR, "has died")) == 1


@on_sqlite
def test_its_attendant_survives(make, caplog):
    """A handler that raises `SystemExit` as a task is recovered ends neither the consumer nor its supervision."""
    queue = make(lease=LEASE)
    deaths = []

    @queue.signal(SIGNAL_EXECUTING, SIGNAL_INTERRUPTED)
    def die(signal, task):
        if deaths.count(signal) == 0:
            deaths.append(signal)
            raise SystemExit

    add = queue.task()(plus)
    with running(queue) as consumer:
        result = add(1, 2)
        assert settled(queue, result) == ["complete"]
        assert deaths == [SIGNAL_EXECUTING, SIGNAL_INTERRUPTED]
        consumer.stop()
        assert hands(consumer) == []
        assert states(add(3, 4)) == "queued"


def test_hooks_of_workers(queue):
    """`on_startup` is called once in each worker's thread before its tasks, and `on_shutdown` once after them."""
    calls, barrier = [], threading.Barrier(3)

    def note(what):
        calls.append((threading.get_ident(), what))

    queue.on_startup()(lambda: note("up"))
    queue.on_shutdown()(lambda: note("down"))

    @queue.task()
    def meet(number):
        note("task")
        barrier.wait(PATIENCE)

    with running(queue, 3) as consumer:
        assert settled(queue, *meet.map(range(3))) == ["complete"] * 3
        consumer.stop()
    threads = {thread for thread, _ in calls}
    assert len(threads) == 3
    for thread in threads:
        assert [what for of, what in calls if of == thread] == ["up", "task", "down"]


# Its end -------------------------------------------------------------------------------------------------------------


def test_graceful(queue):
    """A graceful stop lets what runs come to its end, claims nothing more, and returns when that is done."""
    gate = Gate()
    wait = queue.task()(gate.pass_through)
    with running(queue, 2) as consumer:
        results = [wait(number) for number in range(2)]
        gate.until(2)
        stop = stopping(consumer)
        late = wait(2)
        assert stop.is_alive()
        gate.open()
        ended(stop)
        assert hands(consumer) == []
    assert [states(result) for result in results] == ["queued executing complete"] * 2
    assert states(late) == "queued"


def test_interrupted(queue):
    """Any other stop interrupts what runs, which cleans up, is put back, and says so; the next consumer runs it."""
    gate, sent = Gate(), []
    wait = queue.task(retries=2)(gate.pass_through)
    queue.signal()(lambda signal, task, exc=None: sent.append((task.id, signal)))
    with running(queue, 2) as consumer:
        results = [wait(number) for number in range(3)]
        gate.until(2)
        consumer.stop(graceful=False)
        assert hands(consumer) == []
    assert sorted(gate.left) == [0, 1]
    assert [states(result) for result in results] == [PUT_BACK, PUT_BACK, "queued"]
    told = [signal for task_id, signal in sent if task_id == results[0].id]
    assert told == ["enqueued", "executing", "interrupted", "enqueued"]
    assert [result.task.interruptions for result in results] == [1, 1, 0]
    assert [result.task.retries for result in results] == [2, 2, 2]
    gate.open()
    with running(queue, 2):
        assert settled(queue, *results) == ["complete"] * 3
    assert [result.task.attempt for result in results] == [2, 2, 1]


def test_impatient(queue):
    """A stop that is not graceful interrupts what an earlier, graceful one would have let finish."""
    gate = Gate()
    result = queue.task()(gate.pass_through)()
    with running(queue) as consumer:
        gate.until(1)
        stop = stopping(consumer)
        consumer.stop(graceful=False)
        ended(stop)
        until(lambda: gate.left, "the interruption")
    assert states(result) == PUT_BACK


def in_c(release):
    release.wait()


def swallowing(release):
    while not release.is_set():
        try:
            while not release.is_set():
                time.sleep(0.002)
        except BaseException:
            time.sleep(0.002)


# What waits to be raised in C is nothing for a tracer (see pyproject.toml, at coverage).
@pytest.mark.parametrize("body", [pytest.param(in_c, marks=pytest.mark.no_cover), swallowing])
def test_put_back_on_its_behalf(queue, caplog, body):
    """What cannot be interrupted is put back after the grace; its outcome is refused, and its worker does no more."""
    release, threads, sent = threading.Event(), [], []
    stay = queue.task()(lambda: (threads.append(threading.current_thread()), body(release)))
    queue.signal()(lambda signal, task, exc=None: sent.append((task.id, signal)))
    add = queue.task()(plus)
    with running(queue, grace=0.2) as consumer:
        result = stay()
        until(lambda: threads, "the body")
        waiting = add(1, 2)
        consumer.stop(graceful=False)
        assert states(result) == PUT_BACK
    release.set()
    ended(threads[0])
    assert states(result) == PUT_BACK
    assert [signal for task_id, signal in sent if task_id == result.id] == [
        "enqueued", "executing", "interrupted", "enqueued",
    ]  # fmt: skip
    assert logged(caplog, logging.WARNING, "too late")
    assert states(waiting) == "queued"
    with running(queue):
        assert settled(queue, result, waiting) == ["complete"] * 2
    assert states(result) == f"{PUT_BACK} executing complete"


HANDLED = {
    SIGNAL_EXECUTING: (lambda add: add(1, 2), PUT_BACK),
    SIGNAL_COMPLETE: (lambda add: add(1, 2), "queued executing complete"),
    SIGNAL_REVOKED: (lambda add: (add.revoke(), add(1, 2))[1], "queued revoked"),
    SIGNAL_EXPIRED: (lambda add: add.schedule((1, 2), expires=0), "queued expired"),
    SIGNAL_SCHEDULED: (lambda add: add.schedule((1, 2), delay=3600), "queued scheduled"),
}


@pytest.mark.parametrize("kind", HANDLED)
def test_a_stop_while_a_handler_runs(queue, kind):
    """A slow handler does not hold a stop up, nor break it: what runs is put back, what was decided stays."""
    (act, history), gate, inside = HANDLED[kind], threading.Event(), []
    queue.signal(kind)(lambda signal, task: (inside.append(task.id), gate.wait()))
    with running(queue, 2, grace=0.1) as consumer:
        result = act(queue.task()(plus))
        until(lambda: inside, "the handler")
        workers = hands(consumer)
        consumer.stop(graceful=False)
        assert states(result) == history
        gate.set()
        for thread in workers:
            ended(thread)
    assert states(result) == history


def test_a_stop_while_a_hook_runs(queue):
    """A task whose pre-execute hook still runs when its worker is stopped does not get to its function."""
    release, hooked, ran = threading.Event(), [], []
    queue.pre_execute()(lambda task: (hooked.append(task.id), release.wait()))
    result = queue.task()(lambda: ran.append(0))()
    with running(queue, grace=PATIENCE) as consumer:
        until(lambda: hooked, "the hook")
        stop = stopping(consumer, graceful=False)
        release.set()
        ended(stop)
    assert ran == []
    assert states(result) == PUT_BACK


def test_interrupts_async(queue):
    """An `async` function is interrupted while it awaits, too, and cleans up."""
    waiting, left = [], []

    @queue.task()
    async def wait():
        waiting.append(0)
        try:
            await asyncio.sleep(3600)
        finally:
            left.append(0)

    with running(queue, grace=2.0) as consumer:
        result = wait()
        until(lambda: waiting, "the body")
        consumer.stop(graceful=False)
    assert states(result) == PUT_BACK
    assert left == [0]


def test_times_out_async(queue):
    """An `async` function that awaits for longer than its timeout times out."""

    @queue.task(timeout=0.05)
    async def wait():
        await asyncio.sleep(PATIENCE)

    with running(queue):
        result = wait()
        with pytest.raises(TaskException):
            result.get(timeout=PATIENCE / 2)
    assert states(result) == "queued executing timeout"


def test_started_again(queue):
    """A consumer that was stopped, however often, can be started again, with workers of other names."""
    add = queue.task()(plus)
    workers = []
    consumer = Consumer(queue, 2)
    consumer.stop()
    for number in range(3):
        consumer.start()
        result = add(number, 1)
        assert result.get(timeout=PATIENCE) == number + 1
        workers.append(result.task.worker)
        consumer.stop()
        consumer.stop(graceful=False)
        assert hands(consumer) == []
    assert len(set(workers)) == 3


def test_started_twice(queue):
    """A consumer that runs cannot be started again, and runs on."""
    add = queue.task()(plus)
    with running(queue) as consumer:
        for again in (consumer.start, consumer.run):
            with pytest.raises(ConfigurationError, match="runs already"):
                again()
        assert len(hands(consumer)) == 1
        assert add(1, 2).get(timeout=PATIENCE) == 3


def test_two_consumers_of_one_queue(queue):
    """Several consumers of one queue object share its tasks, and no two of their workers have one name."""
    barrier = threading.Barrier(4)
    meet = queue.task()(lambda number: barrier.wait(PATIENCE))
    with running(queue, 2) as first, running(queue, 2) as second:
        results = meet.map(range(4))
        assert settled(queue, *results) == ["complete"] * 4
        first.stop()
        assert len(hands(second)) == 2
    assert len({result.task.worker for result in results}) == 4


def test_stopped_by_a_task(queue):
    """A task, or a handler, may stop its own consumer: that asks, and does not wait for itself."""
    add = queue.task()(plus)
    with running(queue, 2) as consumer:
        result = queue.task(name="stop")(consumer.stop)()
        assert settled(queue, result) == ["complete"]
        until(lambda: hands(consumer) == [], "the end of the workers")
    assert states(add(1, 2)) == "queued"


def test_runs_in_a_thread(queue):
    """`run` works in any thread, and takes no signals there; `stop` returns when it has ended."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    add = queue.task()(plus)
    consumer = Consumer(queue)
    thread = threading.Thread(target=consumer.run, daemon=True)
    thread.start()
    assert add(1, 2).get(timeout=PATIENCE) == 3
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    consumer.stop()
    assert hands(consumer) == []
    ended(thread)


def test_runs_in_the_main_thread(queue):
    """In the main thread `run` takes SIGINT and SIGTERM over, and gives them back at its end."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    consumer, taken = Consumer(queue), []

    @queue.task()
    def stop():
        taken.extend(signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM))
        signal.raise_signal(signal.SIGINT)

    result = stop()
    consumer.run()
    assert states(result) == "queued executing complete"
    assert set(taken).isdisjoint(before)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_keeps_nothing_open():
    """A consumer that does not run, any more or yet, holds no file descriptor."""
    queue, process = TaskQueue("memory://"), psutil.Process()
    gc.collect()  # what earlier tests have left
    before = process.num_fds()
    consumers = [Consumer(queue) for _ in range(5)]
    for consumer in consumers[:3]:
        consumer.start()
        assert process.num_fds() > before
        consumer.stop()
    assert process.num_fds() == before


# Bad usage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, -1, 1.5, "2", True, None])
def test_bad_counts(workers):
    """A consumer has a whole number of workers, at least one."""
    with pytest.raises(ConfigurationError, match=r"workers=.*whole number"):
        Consumer(TaskQueue("memory://"), workers)


@pytest.mark.parametrize("kind", ["fiber", "Thread", "", None, 1])
def test_bad_types(kind):
    """There are no other types of workers than those that an error names."""
    with pytest.raises(ConfigurationError, match=r"worker_type=.*thread"):
        Consumer(TaskQueue("memory://"), 1, kind)


@pytest.mark.parametrize("grace", [-1, float("nan"), "2", None])
def test_bad_grace(grace):
    """The time of grace is some seconds, and not less than none."""
    with pytest.raises(ConfigurationError, match="grace"):
        Consumer(TaskQueue("memory://"), grace=grace)


def test_no_store(tmp_path):
    """A consumer whose store cannot be used says so at its start, starts no worker, and can be started later."""
    queue = TaskQueue(f"sqlite:///{tmp_path}/later/work.db")
    consumer = Consumer(queue)
    with pytest.raises(ConfigurationError, match="there is no folder"):
        consumer.start()
    assert hands(consumer) == []
    (tmp_path / "later").mkdir()
    consumer.start()
    result = queue.task()(lambda: 7)()
    assert result.get(timeout=PATIENCE) == 7
    consumer.stop()
    queue.close()


# Time ----------------------------------------------------------------------------------------------------------------


def test_virtual_clock(make):
    """On a virtual clock a task runs when the test has moved the time to its ETA: at once then, and not before."""
    clock = VirtualClock()
    queue = make(clock=clock)
    add = queue.task()(plus)
    waits = []
    with running(queue, 2):
        for number in range(5):
            result = add.schedule((number, 1), delay=3600)
            due = clock.now() + 3600
            until(lambda result=result: result.state == "scheduled", "the wait for its ETA")
            clock.advance(3599.5)
            assert add(1, 2).get(timeout=PATIENCE) == 3  # a worker has looked
            assert result.state == "scheduled"
            moved = time.monotonic()
            clock.advance(0.5)
            assert result.get(timeout=PATIENCE) == number + 1
            waits.append(time.monotonic() - moved)
            assert [record.at for record in result.history()[-2:]] == [due, due]
    assert median(waits) < PROMPT


def test_retention(make):
    """What has been at rest for longer than the queue keeps it is deleted, all else stays."""
    clock = VirtualClock()
    queue = make(clock=clock, retention=3600)
    add = queue.task()(plus)
    with running(queue):
        old, waiting = add(1, 2), add.schedule((1, 2), delay=1e6)
        settled(queue, old)
        clock.advance(3599)
        young = add(3, 4)
        settled(queue, young)
        assert old.get() == 3
        clock.advance(2)
        until(lambda: queue.storage.get(old.id) is None, "the end of what is old")
        with pytest.raises(UnknownTask):
            old.get()
        assert young.get() == 7
        assert waiting.state == "scheduled"


@on_sqlite
def test_kept_for_good(make, monkeypatch):
    """With `retention=None` nothing is deleted, ever."""
    clock = VirtualClock()
    queue = make(clock=clock, retention=None, lease=2.0)
    ticks, recover = [], queue.storage.recover
    monkeypatch.setattr(queue.storage, "recover", lambda *given, **more: ticks.append(0) or recover(*given, **more))
    add = queue.task()(plus)
    with running(queue):
        result = add(1, 2)
        settled(queue, result)
        clock.advance(1e9)
        ticks.clear()
        until(lambda: len(ticks) >= 2, "the second tick")
        assert result.get() == 3


@on_sqlite
def test_heartbeat(make):
    """A task that runs for longer than its lease keeps it, and nobody takes it over."""
    queue, gate = make(lease=2 * LEASE), Gate()
    wait = queue.task()(gate.pass_through)
    with running(queue, 2):
        result = wait()
        gate.until(1)
        *_, started = result.history()
        until(lambda: time.time() > started.at + 2.5 * LEASE, "the end of its first lease")
        assert result.task.lease > time.time()
        gate.open()
        assert settled(queue, result) == ["complete"]
    assert states(result) == "queued executing complete"


# A store that is away ------------------------------------------------------------------------------------------------


class Outage:
    """Makes a store fail, in some of its operations, while `on`."""

    def __init__(self, storage, monkeypatch, error, *operations):
        self.on = False
        self.failed = dict.fromkeys(operations, 0)
        self.ticks = 0
        for name in {*operations, "recover"}:
            monkeypatch.setattr(storage, name, self._failing(name, getattr(storage, name), error))

    def _failing(self, name, operation, error):
        def call(*args, **kwargs):
            self.ticks += name == "recover"
            if self.on and name in self.failed:
                self.failed[name] += 1
                raise error
            return operation(*args, **kwargs)

        return call


OUTAGES = {
    "full": (StorageFull("no space left"), ["exchange", "extend", "release"]),
    "away": (
        StorageUnavailable("kept locked"),
        ["exchange", "extend", "release", "recover", "prune", "next_due"],
    ),
}


@on_sqlite
@pytest.mark.parametrize(("error", "operations"), OUTAGES.values(), ids=OUTAGES)
def test_an_outage(make, monkeypatch, caplog, error, operations):
    """While the store fails the consumer says so once, waits, keeps what it could not store, and loses nothing."""
    caplog.set_level(logging.INFO, "lifecycle.consumer")
    queue, gate, ran = make(), Gate(), []
    wait = queue.task()(lambda number: (gate.pass_through(), ran.append(number))[1])
    outage = Outage(queue.storage, monkeypatch, error, *operations)
    with running(queue, 2):
        result = wait(1)
        gate.until(1)
        outage.on = True
        gate.open()
        until(lambda: outage.failed["exchange"] >= 5, "the fifth attempt to store the outcome")
        outage.ticks = 0
        until(lambda: outage.ticks >= 3, "the third tick")
        assert states(result) == "queued executing"
        waiting = wait(2)
        assert len(logged(caplog, logging.ERROR, "the store cannot be used")) == 1
        assert not logged(caplog, logging.INFO, "can be used again")
        outage.on = False
        assert settled(queue, result, waiting) == ["complete"] * 2
        until(lambda: logged(caplog, logging.INFO, "can be used again"), "the good news")
    assert [states(one) for one in (result, waiting)] == ["queued executing complete"] * 2
    assert ran == [1, 2]
    assert len(logged(caplog, logging.ERROR, "the store cannot be used")) == 1
    assert len(logged(caplog, logging.INFO, "can be used again")) == 1


@on_sqlite
def test_each_outage_is_told(make, monkeypatch, caplog):
    """A store that fails again, after it could be used, is told of again."""
    caplog.set_level(logging.INFO, "lifecycle.consumer")
    queue = make()
    add = queue.task()(plus)
    outage = Outage(queue.storage, monkeypatch, StorageUnavailable("gone"), "exchange", "recover")
    with running(queue, 2):
        for count in (1, 2):
            outage.on = True
            result = add(1, 2)
            until(lambda count=count: len(logged(caplog, logging.ERROR, "cannot be used")) >= count, "the bad news")
            outage.on = False
            assert result.get(timeout=PATIENCE) == 3
            until(lambda count=count: len(logged(caplog, logging.INFO, "used again")) >= count, "the good news")
    assert len(logged(caplog, logging.ERROR, "cannot be used")) == len(logged(caplog, logging.INFO, "used again")) == 2


@on_sqlite
def test_stopped_in_an_outage(make, monkeypatch, caplog):
    """A consumer that is stopped while the store fails ends all the same; its task waits for the end of its lease."""
    queue, gate = make(lease=LEASE), Gate()
    wait = queue.task()(gate.pass_through)
    outage = Outage(queue.storage, monkeypatch, StorageUnavailable("gone"), "exchange", "recover", "extend")
    with running(queue, 2, grace=0.1) as consumer:
        result = wait()
        gate.until(1)
        outage.on = True
        gate.open()
        until(lambda: outage.failed["exchange"] >= 3, "the third attempt to store the outcome")
        workers = hands(consumer)
        ended(stopping(consumer, graceful=False))
        for thread in workers:
            ended(thread)
    outage.on = False
    with running(queue):
        assert settled(queue, result) == ["complete"]
    assert states(result) == f"{PUT_BACK} executing complete"


@on_sqlite
def test_drains_through_an_outage(make, monkeypatch):
    """A graceful stop waits for the store, if an outcome is still to be stored."""
    queue, gate = make(), Gate()
    result = queue.task()(gate.pass_through)()
    outage = Outage(queue.storage, monkeypatch, StorageUnavailable("gone"), "exchange")
    with running(queue) as consumer:
        gate.until(1)
        outage.on = True
        stop = stopping(consumer)
        gate.open()
        until(lambda: outage.failed["exchange"] >= 3, "the third attempt to store the outcome")
        assert stop.is_alive()
        outage.on = False
        ended(stop)
    assert states(result) == "queued executing complete"


@on_sqlite
def test_a_missed_heartbeat(make, monkeypatch, caplog):
    """A heartbeat that fails is logged, and the next one keeps the lease."""
    queue, gate = make(lease=2 * LEASE), Gate()
    wait = queue.task()(gate.pass_through)
    outage = Outage(queue.storage, monkeypatch, StorageUnavailable("gone"), "extend")
    outage.on = True
    with running(queue):
        result = wait()
        gate.until(1)
        lease = result.task.lease
        until(lambda: outage.failed["extend"], "a heartbeat")
        outage.on = False
        until(lambda: result.task.lease > lease, "another heartbeat")
        gate.open()
        assert settled(queue, result) == ["complete"]
    assert states(result) == "queued executing complete"
    assert logged(caplog, logging.WARNING, "heartbeat failed")


@on_sqlite
def test_a_handler_of_a_recovery(make):
    """A handler of a recovered task that takes long delays neither the workers nor a stop."""
    queue, gate, inside = make(lease=LEASE), threading.Event(), []
    queue.signal(SIGNAL_INTERRUPTED)(lambda signal, task: (inside.append(task.id), gate.wait()))
    add = queue.task()(plus)
    lost = add(1, 2)
    (_, (claim,)) = queue.storage.exchange((), Claimant("somebody who is gone", time.time() - LEASE, LEASE))
    assert claim.task.id == lost.id
    with running(queue) as consumer:
        until(lambda: inside, "the recovery")
        assert add(3, 4).get(timeout=PATIENCE) == 7
        ended(stopping(consumer))
        gate.set()
        assert hands(consumer) == []
