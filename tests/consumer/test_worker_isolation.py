"""Workers keep apart: what is slow, fails or dies in one of them harms no other."""

import logging
import threading

import pytest
from support.consumers import PUT_BACK, Gate, hands, logged, on_sqlite, plus, running
from support.processes import LEASE, PATIENCE, settled, states, until

from lifecycle import SIGNAL_COMPLETE, SIGNAL_EXECUTING, SIGNAL_INTERRUPTED


@pytest.fixture
def make(live):
    """On the real clock."""
    return live


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
