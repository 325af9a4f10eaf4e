"""A consumer's end: in good time, at once, or against what does not want to end; and its start after that."""

import asyncio
import gc
import logging
import signal
import threading
import time

import psutil
import pytest
from support.consumers import PUT_BACK, Gate, ended, hands, logged, plus, running, stopping
from support.processes import LONG_AGO, PATIENCE, settled, states, until

from lifecycle import (
    SIGNAL_COMPLETE,
    SIGNAL_EXECUTING,
    SIGNAL_EXPIRED,
    SIGNAL_REVOKED,
    SIGNAL_SCHEDULED,
    ConfigurationError,
    Consumer,
    TaskException,
    TaskQueue,
)


@pytest.fixture
def make(live):
    """On the real clock."""
    return live


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
@pytest.mark.parametrize("body", [pytest.param(in_c, marks=pytest.mark.untraced), swallowing])
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
    SIGNAL_EXPIRED: (lambda add: add.schedule((1, 2), expires=LONG_AGO), "queued expired"),
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
