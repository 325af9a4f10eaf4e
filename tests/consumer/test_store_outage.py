"""A consumer outlives a store that is away, and does then what was to be done."""

import logging
import threading
import time

import pytest
from support.consumers import PUT_BACK, Gate, Outage, ended, hands, logged, on_sqlite, plus, running, stopping
from support.processes import LEASE, PATIENCE, settled, states, until

from lifecycle import SIGNAL_INTERRUPTED, StorageFull, StorageUnavailable
from lifecycle.storage.base import ClaimRequest


@pytest.fixture
def make(live):
    """On the real clock."""
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
    (_, (claim,)) = queue.storage.exchange((), ClaimRequest("somebody who is gone", time.time() - LEASE, LEASE))
    assert claim.task.id == lost.id
    with running(queue) as consumer:
        until(lambda: inside, "the recovery")
        assert add(3, 4).get(timeout=PATIENCE) == 7
        ended(stopping(consumer))
        gate.set()
        assert hands(consumer) == []
