"""Stops of a consumer: graceful, interrupting, after the grace; and starts after a stop."""

import asyncio
import gc
import logging
import signal
import threading
import time

import psutil
import pytest
from support.consumers import REQUEUED_STATES, Blocker, begin_stop, join, logged, plus, running, worker_threads
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
    """Make queues on the real clock."""
    return live


def test_graceful_stop_finishes_running_tasks_and_claims_no_more(queue):
    """A graceful stop lets running tasks finish, claims no more, and returns afterwards."""
    blocker = Blocker()
    wait = queue.task()(blocker.run)
    with running(queue, 2) as consumer:
        results = [wait(number) for number in range(2)]
        blocker.wait_until_started(2)
        stop = begin_stop(consumer)
        late = wait(2)
        assert stop.is_alive()
        blocker.release()
        join(stop)
        assert worker_threads(consumer) == []
    assert [states(result) for result in results] == ["queued executing complete"] * 2
    assert states(late) == "queued"


def test_interrupting_stop_requeues_running_tasks(queue):
    """A stop that is not graceful interrupts running tasks: they clean up, are requeued, and run on the next consumer."""
    blocker, sent = Blocker(), []
    wait = queue.task(retries=2)(blocker.run)
    queue.signal()(lambda signal, task, exc=None: sent.append((task.id, signal)))
    with running(queue, 2) as consumer:
        results = [wait(number) for number in range(3)]
        blocker.wait_until_started(2)
        consumer.stop(graceful=False)
        assert worker_threads(consumer) == []
    assert sorted(blocker.ended) == [0, 1]
    assert [states(result) for result in results] == [REQUEUED_STATES, REQUEUED_STATES, "queued"]
    sent_signals = [signal for task_id, signal in sent if task_id == results[0].id]
    assert sent_signals == ["enqueued", "executing", "interrupted", "enqueued"]
    assert [result.task.interruptions for result in results] == [0, 0, 0]
    assert [result.task.retries for result in results] == [2, 2, 2]
    blocker.release()
    with running(queue, 2):
        assert settled(queue, *results) == ["complete"] * 3
    assert [result.task.attempt for result in results] == [2, 2, 1]


def test_interrupting_stop_after_a_graceful_one(queue):
    """A stop that is not graceful interrupts the tasks that an earlier graceful stop lets finish."""
    blocker = Blocker()
    result = queue.task()(blocker.run)()
    with running(queue) as consumer:
        blocker.wait_until_started(1)
        stop = begin_stop(consumer)
        consumer.stop(graceful=False)
        join(stop)
        until(lambda: blocker.ended, "the interruption")
    assert states(result) == REQUEUED_STATES


def in_c(release):
    release.wait()


def swallowing(release):
    while not release.is_set():
        try:
            while not release.is_set():
                time.sleep(0.002)
        except BaseException:
            time.sleep(0.002)


# A tracer does not survive an exception that waits to be raised in C (see pyproject.toml, at coverage).
@pytest.mark.parametrize("function", [pytest.param(in_c, marks=pytest.mark.untraced), swallowing])
def test_task_that_cannot_be_interrupted_is_requeued_after_the_grace(queue, caplog, function):
    """A task that cannot be interrupted is requeued after the grace; its outcome is refused; its worker stops."""
    release, threads, sent = threading.Event(), [], []
    stay = queue.task()(lambda: (threads.append(threading.current_thread()), function(release)))
    queue.signal()(lambda signal, task, exc=None: sent.append((task.id, signal)))
    add = queue.task()(plus)
    with running(queue, grace=0.2) as consumer:
        result = stay()
        until(lambda: threads, "the function")
        waiting = add(1, 2)
        consumer.stop(graceful=False)
        assert states(result) == REQUEUED_STATES
    release.set()
    join(threads[0])
    assert states(result) == REQUEUED_STATES
    assert [signal for task_id, signal in sent if task_id == result.id] == [
        "enqueued", "executing", "interrupted", "enqueued",
    ]  # fmt: skip
    assert logged(caplog, logging.WARNING, "too late")
    assert states(waiting) == "queued"
    with running(queue):
        assert settled(queue, result, waiting) == ["complete"] * 2
    assert states(result) == f"{REQUEUED_STATES} executing complete"


HANDLED = {
    SIGNAL_EXECUTING: (lambda add: add(1, 2), REQUEUED_STATES),
    SIGNAL_COMPLETE: (lambda add: add(1, 2), "queued executing complete"),
    SIGNAL_REVOKED: (lambda add: (add.revoke(), add(1, 2))[1], "queued revoked"),
    SIGNAL_EXPIRED: (lambda add: add.schedule((1, 2), expires=LONG_AGO), "queued expired"),
    SIGNAL_SCHEDULED: (lambda add: add.schedule((1, 2), delay=3600), "queued scheduled"),
}


@pytest.mark.parametrize("kind", HANDLED)
def test_slow_handler_does_not_delay_an_interrupting_stop(queue, kind):
    """A slow handler does not delay a stop: a running task is requeued, and a committed state stays."""
    (act, history), released, inside = HANDLED[kind], threading.Event(), []
    queue.signal(kind)(lambda signal, task: (inside.append(task.id), released.wait()))
    with running(queue, 2, grace=0.1) as consumer:
        result = act(queue.task()(plus))
        until(lambda: inside, "the handler")
        workers = worker_threads(consumer)
        consumer.stop(graceful=False)
        assert states(result) == history
        released.set()
        for thread in workers:
            join(thread)
    assert states(result) == history


def test_function_is_not_called_if_the_stop_comes_during_its_hook(queue):
    """A task whose pre-execute hook runs when its worker is stopped does not get to its function."""
    release, hooked, ran = threading.Event(), [], []
    queue.pre_execute()(lambda task: (hooked.append(task.id), release.wait()))
    result = queue.task()(lambda: ran.append(0))()
    with running(queue, grace=PATIENCE) as consumer:
        until(lambda: hooked, "the hook")
        stop = begin_stop(consumer, graceful=False)
        release.set()
        join(stop)
    assert ran == []
    assert states(result) == REQUEUED_STATES


def test_stop_interrupts_async_function(queue):
    """An `async` function is interrupted where it awaits, and cleans up."""
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
        until(lambda: waiting, "the function")
        consumer.stop(graceful=False)
    assert states(result) == REQUEUED_STATES
    assert left == [0]


def test_async_function_times_out(queue):
    """An `async` function that awaits longer than its timeout ends `timeout`."""

    @queue.task(timeout=0.05)
    async def wait():
        await asyncio.sleep(PATIENCE)

    with running(queue):
        result = wait()
        with pytest.raises(TaskException):
            result.get(timeout=PATIENCE / 2)
    assert states(result) == "queued executing timeout"


def test_stopped_consumer_can_be_started_again(queue):
    """A stopped consumer can be started again, with workers of other names."""
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
        assert worker_threads(consumer) == []
    assert len(set(workers)) == 3


def test_running_consumer_cannot_be_started_again(queue):
    """A running consumer cannot be started again, and runs on."""
    add = queue.task()(plus)
    with running(queue) as consumer:
        for again in (consumer.start, consumer.run):
            with pytest.raises(ConfigurationError, match="runs already"):
                again()
        assert len(worker_threads(consumer)) == 1
        assert add(1, 2).get(timeout=PATIENCE) == 3


def test_two_consumers_of_one_queue_object_share_its_tasks(queue):
    """Two consumers of one queue object share its tasks, and all their workers have different names."""
    barrier = threading.Barrier(4)
    meet = queue.task()(lambda number: barrier.wait(PATIENCE))
    with running(queue, 2) as first, running(queue, 2) as second:
        results = meet.map(range(4))
        assert settled(queue, *results) == ["complete"] * 4
        first.stop()
        assert len(worker_threads(second)) == 2
    assert len({result.task.worker for result in results}) == 4


def test_task_can_stop_its_own_consumer(queue):
    """A task can stop its own consumer: `stop` returns at once there."""
    add = queue.task()(plus)
    with running(queue, 2) as consumer:
        result = queue.task(name="stop")(consumer.stop)()
        assert settled(queue, result) == ["complete"]
        until(lambda: worker_threads(consumer) == [], "the end of the workers")
    assert states(add(1, 2)) == "queued"


def test_run_in_a_thread_takes_no_os_signals(queue):
    """`run` works in any thread, and takes no signals there; `stop` returns after the end of the run."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    add = queue.task()(plus)
    consumer = Consumer(queue)
    thread = threading.Thread(target=consumer.run, daemon=True)
    thread.start()
    assert add(1, 2).get(timeout=PATIENCE) == 3
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    consumer.stop()
    assert worker_threads(consumer) == []
    join(thread)


def test_run_in_the_main_thread_takes_and_restores_os_signals(queue):
    """In the main thread `run` takes SIGINT and SIGTERM, and restores their handlers at its end."""
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


def test_stopped_consumer_holds_no_file_descriptor():
    """A consumer that does not run holds no file descriptor."""
    queue, process = TaskQueue("memory://"), psutil.Process()
    gc.collect()  # objects of earlier tests
    before = process.num_fds()
    consumers = [Consumer(queue) for _ in range(5)]
    for consumer in consumers[:3]:
        consumer.start()
        assert process.num_fds() > before
        consumer.stop()
    assert process.num_fds() == before
