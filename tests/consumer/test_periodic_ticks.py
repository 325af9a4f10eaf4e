"""Periodic tasks in running consumers: each tick is made once, by whichever consumer is first."""

import threading

import pytest
from support.consumers import running
from support.processes import PATIENCE, until

from lifecycle import TaskQueue
from lifecycle.testing import VirtualClock

THREADS = 8


@pytest.fixture
def clock():
    """Virtual clock at a full hour."""
    clock = VirtualClock()
    clock.advance(3600 - clock.now() % 3600)
    return clock


@pytest.fixture
def queue(url, clock):
    """Queue on the virtual clock, as several processes have it."""
    queue = TaskQueue(url, clock=clock)
    yield queue
    queue.close()


def test_consumer_makes_ticks_and_runs_their_tasks(queue, clock, ran):
    """A consumer enqueues a periodic task at each tick, and runs it; a task declared while it runs has ticks, too."""
    queue.periodic(every=60, name="first")(lambda: ran.append("first"))
    with running(queue):
        until(lambda: queue.storage.periodic_states())
        clock.advance(60)
        until(lambda: ran == ["first"])
        queue.periodic(every=60, name="second")(lambda: ran.append("second"))
        until(lambda: len(queue.storage.periodic_states()) == 2)
        clock.advance(60)
        until(lambda: sorted(ran) == ["first", "first", "second"])


def test_error_in_a_rule_leaves_all_other_ticks(queue, clock, ran, caplog):
    """A rule that raises is logged, and neither ends the consumer nor keeps other periodic tasks from their ticks."""
    queue.periodic_task(lambda _: 1 / 0, name="faulty")(lambda: None)
    queue.periodic(every=60)(lambda: ran.append(1))
    with running(queue):
        until(lambda: queue.storage.periodic_states())
        clock.advance(60)
        until(lambda: ran == [1])
    assert "task=faulty" in caplog.text


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis", "postgres"], indirect=True)
def test_processes_at_one_moment_make_each_tick_once(url, clock):
    """Many processes that see a tick at the same moment make one task of it."""
    queues = [TaskQueue(url, clock=clock) for _ in range(1 if url == "memory://" else THREADS)]
    queues *= THREADS // len(queues)
    made = []
    for queue in set(queues):
        queue.periodic(every=60, name="tick")(lambda: None)
        queue.enqueue_periodic()
    try:
        for _ in range(5):
            clock.advance(60)
            barrier = threading.Barrier(THREADS)

            def look(queue, barrier=barrier):
                barrier.wait(PATIENCE)
                made.extend(queue.enqueue_periodic())

            threads = [threading.Thread(target=look, args=(queue,)) for queue in queues]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)
        assert len(made) == 5
        assert queues[0].counts()["queued"] == 5
    finally:
        for queue in set(queues):
            queue.close()
