"""Outages of the store: a consumer waits, loses nothing, and logs each outage once."""

import logging
import signal
import threading
import time
from contextlib import closing

import pytest
from support.consumers import (
    REQUEUED_STATES,
    Blocker,
    Outage,
    begin_stop,
    join,
    logged,
    on_sqlite,
    plus,
    running,
    worker_threads,
)
from support.processes import (
    LEASE,
    PATIENCE,
    consumer_process,
    settled,
    states,
    stop_process,
    until,
    wait_for_log,
)

from lifecycle import SIGNAL_INTERRUPTED, StorageFull, StorageUnavailable, TaskQueue
from lifecycle.storage.base import Actor, ClaimRequest
from lifecycle.testing import VirtualClock


@pytest.fixture
def make(live):
    """Make queues on the real clock."""
    return live


OUTAGES = {
    "full": (StorageFull("no space left"), ["exchange", "extend", "release"]),
    "away": (
        StorageUnavailable("kept locked"),
        ["exchange", "extend", "release", "recover", "prune", "next_due"],
    ),
}


@on_sqlite
@pytest.mark.parametrize(("error", "operations"), OUTAGES.values(), ids=OUTAGES)
def test_consumer_keeps_outcomes_during_an_outage_and_logs_it_once(make, monkeypatch, caplog, error, operations):
    """While the store fails a consumer logs that once, waits, keeps the outcomes, and loses nothing."""
    caplog.set_level(logging.INFO, "lifecycle.consumer")
    queue, blocker, ran = make(), Blocker(), []
    wait = queue.task()(lambda number: (blocker.run(), ran.append(number))[1])
    outage = Outage(queue.storage, monkeypatch, error, *operations)
    with running(queue, 2):
        result = wait(1)
        blocker.wait_until_started(1)
        outage.on = True
        blocker.release()
        until(lambda: outage.failed["exchange"] >= 5, "the fifth attempt to store the outcome")
        outage.ticks = 0
        until(lambda: outage.ticks >= 3, "the third tick")
        assert states(result) == "queued executing"
        waiting = wait(2)
        assert len(logged(caplog, logging.ERROR, "the store cannot be used")) == 1
        assert not logged(caplog, logging.INFO, "can be used again")
        outage.on = False
        assert settled(queue, result, waiting) == ["complete"] * 2
        until(lambda: logged(caplog, logging.INFO, "can be used again"), "the end of the outage in the log")
    assert [states(one) for one in (result, waiting)] == ["queued executing complete"] * 2
    assert ran == [1, 2]
    assert len(logged(caplog, logging.ERROR, "the store cannot be used")) == 1
    assert len(logged(caplog, logging.INFO, "can be used again")) == 1


@on_sqlite
def test_each_outage_is_logged(make, monkeypatch, caplog):
    """A second outage of the store is logged again."""
    caplog.set_level(logging.INFO, "lifecycle.consumer")
    queue = make()
    add = queue.task()(plus)
    outage = Outage(queue.storage, monkeypatch, StorageUnavailable("gone"), "exchange", "recover")
    with running(queue, 2):
        for count in (1, 2):
            outage.on = True
            result = add(1, 2)
            until(
                lambda count=count: len(logged(caplog, logging.ERROR, "cannot be used")) >= count,
                "the outage in the log",
            )
            outage.on = False
            assert result.get(timeout=PATIENCE) == 3
            until(
                lambda count=count: len(logged(caplog, logging.INFO, "used again")) >= count,
                "the end of the outage in the log",
            )
    assert len(logged(caplog, logging.ERROR, "cannot be used")) == len(logged(caplog, logging.INFO, "used again")) == 2


@on_sqlite
def test_consumer_can_be_stopped_during_an_outage(make, monkeypatch, caplog):
    """A consumer that is stopped while the store fails ends; its task is recovered after its lease."""
    queue, blocker = make(lease=LEASE), Blocker()
    wait = queue.task()(blocker.run)
    outage = Outage(queue.storage, monkeypatch, StorageUnavailable("gone"), "exchange", "recover", "extend")
    with running(queue, 2, grace=0.1) as consumer:
        result = wait()
        blocker.wait_until_started(1)
        outage.on = True
        blocker.release()
        until(lambda: outage.failed["exchange"] >= 3, "the third attempt to store the outcome")
        workers = worker_threads(consumer)
        join(begin_stop(consumer, graceful=False))
        for thread in workers:
            join(thread)
    outage.on = False
    with running(queue):
        assert settled(queue, result) == ["complete"]
    assert states(result) == f"{REQUEUED_STATES} executing complete"


@on_sqlite
def test_graceful_stop_waits_for_the_store(make, monkeypatch):
    """A graceful stop waits for the store while an outcome is not stored."""
    queue, blocker = make(), Blocker()
    result = queue.task()(blocker.run)()
    outage = Outage(queue.storage, monkeypatch, StorageUnavailable("gone"), "exchange")
    with running(queue) as consumer:
        blocker.wait_until_started(1)
        outage.on = True
        stop = begin_stop(consumer)
        blocker.release()
        until(lambda: outage.failed["exchange"] >= 3, "the third attempt to store the outcome")
        assert stop.is_alive()
        outage.on = False
        join(stop)
    assert states(result) == "queued executing complete"


@on_sqlite
def test_failed_heartbeat_is_logged_and_the_next_keeps_the_lease(make, monkeypatch, caplog):
    """A heartbeat that fails is logged, and the next one keeps the lease."""
    queue, blocker = make(lease=2 * LEASE), Blocker()
    wait = queue.task()(blocker.run)
    outage = Outage(queue.storage, monkeypatch, StorageUnavailable("gone"), "extend")
    outage.on = True
    with running(queue):
        result = wait()
        blocker.wait_until_started(1)
        lease = result.task.lease
        until(lambda: outage.failed["extend"], "a heartbeat")
        outage.on = False
        until(lambda: result.task.lease > lease, "another heartbeat")
        blocker.release()
        assert settled(queue, result) == ["complete"]
    assert states(result) == "queued executing complete"
    assert logged(caplog, logging.WARNING, "heartbeat failed")


@on_sqlite
def test_slow_handler_of_a_recovered_task_delays_no_worker(make):
    """A slow handler of a recovered task delays neither the workers nor a stop."""
    queue, released, inside = make(lease=LEASE), threading.Event(), []
    queue.signal(SIGNAL_INTERRUPTED)(lambda signal, task: (inside.append(task.id), released.wait()))
    add = queue.task()(plus)
    lost = add(1, 2)
    (_, (claim,)) = queue.storage.exchange((), ClaimRequest("dead worker", time.time() - LEASE, LEASE))
    assert claim.task.id == lost.id
    with running(queue) as consumer:
        until(lambda: inside, "the recovery")
        assert add(3, 4).get(timeout=PATIENCE) == 7
        join(begin_stop(consumer))
        released.set()
        assert worker_threads(consumer) == []


# Leases that lapse during an outage ----------------------------------------------------------------------------------

DAY = 86_400.0
"""Seconds: a lease so long that no heartbeat is due during a test."""
EVERYTHING = ["exchange", "extend", "release", "recover", "prune", "next_due", "canceling", "get", "unlock"]


@on_sqlite
@pytest.mark.parametrize("worker_type", ["thread", "asyncio"])
def test_consumer_keeps_its_own_tasks_after_an_outage(make, monkeypatch, worker_type):
    """A consumer prolongs its own leases after an outage that was longer than a lease: its tasks run once."""
    queue, blocker = make(clock=VirtualClock(), lease=DAY), Blocker()
    wait = queue.task()(blocker.run)
    outage = Outage(queue.storage, monkeypatch, StorageUnavailable("away"), *EVERYTHING)
    with running(queue, 2, worker_type=worker_type):
        result = wait()
        blocker.wait_until_started(1)
        outage.on = True
        queue.engine.clock.advance(3 * DAY)
        until(lambda: outage.failed["extend"] >= 2, "the second attempt to prolong the lease")
        outage.on, outage.ticks = False, 0
        until(lambda: result.task.lease > queue.engine.clock.now(), "the prolonged lease")
        blocker.release()
        assert settled(queue, result) == ["complete"]
    assert states(result) == "queued executing complete"
    assert len(blocker.started) == 1


@on_sqlite
def test_consumer_leaves_others_time_to_prolong_their_leases_after_an_outage(make, monkeypatch):
    """After an outage a consumer recovers nothing for half a lease: other consumers prolong their leases meanwhile."""
    clock, blocker = VirtualClock(), Blocker()
    queue = make(clock=clock, lease=DAY)
    other = TaskQueue(f"sqlite:///{queue.storage._database.path}", clock=clock, lease=DAY)
    mine, theirs = (Outage(one.storage, monkeypatch, StorageUnavailable("away"), *EVERYTHING) for one in (queue, other))
    wait = queue.task(name="wait")(blocker.run)
    with closing(other), running(queue):
        result = wait()
        blocker.wait_until_started(1)
        with running(other) as late:
            until(lambda: theirs.ticks, "the first look of the other consumer")
            mine.on = theirs.on = True
            clock.advance(3 * DAY)
            until(lambda: mine.failed["extend"] and not late.health.store, "the outage")
            theirs.on = False
            until(lambda: late.health.store, "the end of the outage for the other consumer")
            seen = other.get(result.id)
            assert (seen.state, seen.attempt) == ("executing", 1)
            mine.on = False
            until(lambda: result.task.lease > clock.now(), "the prolonged lease")
            blocker.release()
            assert settled(queue, result) == ["complete"]
    assert states(result) == "queued executing complete"
    assert len(blocker.started) == 1


@on_sqlite
@pytest.mark.parametrize("worker_type", ["thread", "asyncio"])
def test_function_that_still_runs_is_not_started_beside_itself(make, worker_type):
    """A task that another process has recovered begins here only when its function, which still runs here, has ended."""
    clock, blocker = VirtualClock(), Blocker()
    queue = make(clock=clock, lease=DAY)
    wait = queue.task()(blocker.run)
    with running(queue, 3, worker_type=worker_type):
        result = wait()
        blocker.wait_until_started(1)
        task = result.task
        later = clock.now() + 2 * DAY
        queue.storage.recover(later, Actor("another process"))
        until(lambda: result.task.attempt == 2, "the second attempt")
        assert (queue.task(name="other")(plus)(1, 2).get(timeout=PATIENCE), len(blocker.started)) == (3, 1)
        blocker.release()
        assert settled(queue, result) == ["complete"]
    assert task.attempt == 1
    assert states(result) == f"{REQUEUED_STATES} executing complete"
    assert (len(blocker.started), len(blocker.ended)) == (2, 2)


@on_sqlite
@pytest.mark.parametrize(("error", "operations"), OUTAGES.values(), ids=OUTAGES)
def test_consumer_that_starts_without_its_store_waits_for_it(make, monkeypatch, caplog, error, operations):
    """A store that is away when the consumer starts is waited for, with a warning, and a stop ends the wait at once."""
    queue = make()
    add = queue.task()(plus)
    result = add(1, 2)
    outage = Outage(queue.storage, monkeypatch, error, *operations, "next_due")
    outage.on = True
    with running(queue) as consumer:
        until(lambda: outage.failed["exchange"] >= 2, "two attempts")
        assert len(logged(caplog, logging.WARNING, "the store cannot be used yet")) == 1
        assert not consumer.health.ready
        outage.on = False
        assert result.get(timeout=PATIENCE) == 3
        until(lambda: consumer.health.ready, "the health")
    outage.on = True
    with running(queue) as consumer:
        began = time.monotonic()
        consumer.stop()
        assert time.monotonic() - began < PATIENCE / 3


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "postgresql://127.0.0.1:1/nobody"])
def test_consumer_process_waits_for_a_server_that_is_not_there(tmp_path, url):
    """`lifecycle run` waits for a server that does not answer; SIGTERM ends it with code 0, without a traceback."""
    (tmp_path / "app.py").write_text(f"from lifecycle import TaskQueue\nqueue = TaskQueue({url!r})\n")
    with consumer_process(tmp_path, "app", "--health", "127.0.0.1:0") as consumer:
        wait_for_log(consumer, "the store cannot be used yet")
        wait_for_log(consumer, "1 workers")
        assert stop_process(consumer, signal.SIGTERM) == 0
        assert "Traceback" not in consumer.log.read_text()
