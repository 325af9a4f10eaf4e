"""Isolation of workers: a slow, failing or dying worker harms no other."""

import logging
import threading

import pytest
from support.consumers import REQUEUED_STATES, Blocker, logged, on_sqlite, plus, running, worker_threads
from support.processes import LEASE, PATIENCE, settled, states, until

from lifecycle import SIGNAL_COMPLETE, SIGNAL_EXECUTING, SIGNAL_INTERRUPTED


@pytest.fixture
def make(live):
    """Make queues on the real clock."""
    return live


def test_slow_task_delays_no_other_task(queue):
    """A slow task delays no other task, not even those claimed together with it."""
    blocker = Blocker()
    pause = queue.task()(lambda number, wait: (blocker.run() if wait else None, number)[1])
    with running(queue, 2):
        settled(queue, *pause.map((number, False) for number in range(400)))  # quick until now
        slow, *others = pause.map((number, number == 0) for number in range(60))
        assert settled(queue, *others) == ["complete"] * 59
        assert slow.state == "executing"
        blocker.release()
        assert settled(queue, slow) == ["complete"]
    assert slow.task.attempt == 1


@pytest.mark.parametrize("kind", [SIGNAL_EXECUTING, SIGNAL_COMPLETE])
def test_slow_handler_delays_no_other_task(queue, kind):
    """A slow handler delays no task but its own, not even the next task of its worker."""
    blocker = Blocker()
    number = queue.task()(lambda number, wait: number)
    queue.signal(kind)(lambda signal, task: blocker.run() if task.args[1] else None)
    with running(queue, 2):
        settled(queue, *number.map((one, False) for one in range(400)))  # quick until now
        slow, *others = number.map((one, one == 0) for one in range(60))
        blocker.wait_until_started(1)
        assert settled(queue, *others) == ["complete"] * 59
        assert slow.state == ("executing" if kind == SIGNAL_EXECUTING else "complete")
        blocker.release()
        assert settled(queue, slow) == ["complete"]
    assert [result.get() for result in (slow, *others)] == list(range(60))
    assert slow.task.attempt == 1


def test_tasks_claimed_by_a_stuck_worker_are_requeued(queue):
    """Tasks that a stuck worker has claimed and not begun are requeued and announced; none runs twice."""
    blocker, ran, sent = Blocker(), [], []
    run = queue.task()(lambda number, wait: (blocker.run() if wait else None, ran.append(number)))
    queue.signal()(lambda signal, task, exc=None: sent.append((task.id, signal)))
    with running(queue) as consumer:
        settled(queue, *run.map((-1, False) for _ in range(400)))
        results = run.map((number, number == 0) for number in range(10))
        blocker.wait_until_started(1)
        until(lambda: all(result.state == "queued" for result in results[1:]), "the requeuing")
        blocker.release()
        assert settled(queue, *results) == ["complete"] * 10
        consumer.stop()
    assert [number for number in ran if number >= 0] == list(range(10))
    for result in results:
        sent_signals = [signal for task_id, signal in sent if task_id == result.id]
        assert sent_signals[1:] == [state.replace("queued", "enqueued") for state in states(result).split()[1:]]
        assert states(result) in ("queued executing complete", f"{REQUEUED_STATES} executing complete")


def test_hooks_and_handlers_that_raise_are_logged(queue, caplog):
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


def test_worker_survives_any_exception_of_a_task(queue):
    """A worker goes on after any exception of a task, `SystemExit` and `KeyboardInterrupt` too."""

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
def test_worker_killed_by_a_handler_is_replaced(make, caplog, where):
    """A worker that dies of an exception of a handler is replaced; its task is recovered after its lease."""
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
        assert len(worker_threads(consumer)) == 1
    died = queue.handle(deaths[0])
    if where == SIGNAL_EXECUTING:
        assert states(died) == f"{REQUEUED_STATES} executing complete"
        assert len({record.worker for record in died.history() if record.state == "executing"}) == 2
    else:
        assert states(died) == "queued executing complete"
    assert len(logged(caplog, logging.ERROR, "has died")) == 1


@on_sqlite
def test_supervision_survives_a_handler_that_exits(make, caplog):
    """A handler that raises `SystemExit` for a recovered task ends neither the consumer nor its supervision."""
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
        assert worker_threads(consumer) == []
        assert states(add(3, 4)) == "queued"


def test_startup_and_shutdown_hooks_run_once_in_each_worker(queue):
    """`on_startup` is called once in each worker's thread before its tasks, `on_shutdown` once after them."""
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
