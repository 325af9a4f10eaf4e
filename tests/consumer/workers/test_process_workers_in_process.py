"""Process workers of a consumer in the process of the tests, where coverage measures the consumer."""

import importlib
import json
import os
import signal
import sys

import pytest
from support.consumers import begin_stop, join
from support.processes import DELAY, LONG, PATIENCE, PROGRAMS, settled, states, until

from lifecycle import Consumer, TaskTimeout
from lifecycle.consumer.os_signals import restore_handlers, set_handler
from lifecycle.consumer.workers import process_main as child
from lifecycle.consumer.workers.base import WorkerContext, WorkerOptions
from lifecycle.consumer.workers.process import ProcessWorker
from lifecycle.storage.base import ClaimRequest

FORKS = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
"""Python 3.12 and later warn of forks beside threads: here the child needs nothing that a thread might lock."""


@pytest.fixture
def chores(tmp_path, monkeypatch):
    """Module `chores`, which spawned processes can import, too."""
    setting = {"url": f"sqlite:///{tmp_path}/here.db", "queue": {"lease": LONG}, "folder": str(tmp_path)}
    monkeypatch.setenv("PROGRAM", json.dumps(setting | {"delay": DELAY, "events": None}))
    monkeypatch.syspath_prepend(PROGRAMS)
    module = importlib.import_module("chores")
    yield module
    (tmp_path / "release").touch()
    module.queue.close()
    del sys.modules["chores"]


def test_consumer_settles_replaces_and_ends_its_processes(chores):
    """A consumer with process workers settles the tasks of killed ones, replaces them, and ends with them."""
    queue = chores.queue
    consumer = Consumer(queue, 1, "process", max_tasks=2, grace=0.5)
    consumer.start()
    first = chores.where().get(timeout=PATIENCE)
    ignoring_timeout, stubborn, poison = chores.ignoring_timeout(), chores.stubborn(), chores.poison()
    assert settled(queue, ignoring_timeout) == ["timeout"]
    until(lambda: stubborn.state == "executing", "the function")
    stubborn.cancel()
    assert settled(queue, stubborn) == ["canceled"]
    until(lambda: poison.task.interruptions > 1, "the second death")
    queue.revoke(poison)
    assert settled(queue, poison) == ["revoked"]
    pids = {chores.where().get(timeout=PATIENCE) for _ in range(3)}
    assert first not in pids
    assert len(pids) == 2
    assert consumer.health.ready
    late = chores.asleep()
    until(lambda: late.state == "executing", "the last function")
    stop = begin_stop(consumer)
    consumer.stop(graceful=False)
    join(stop)
    assert states(late) == "queued executing interrupted queued"


def test_process_that_runs_another_attempt_is_not_killed(chores):
    """A process that runs another attempt when it is to be killed is left alone, and runs on."""
    consumer = Consumer(chores.queue, 1, "process", grace=0.5)
    consumer.start()
    result = chores.asleep()
    (handle,) = consumer._workers
    until(lambda: handle._status.read().task_id == result.id, "the function")
    handle._kill_for(handle._status.read()._replace(attempt=7), TaskTimeout)
    assert handle.is_alive()
    assert states(result) == "queued executing"
    consumer.stop(graceful=False)
    assert states(result) == "queued executing interrupted queued"


def test_stopped_process_claims_nothing_more_even_if_it_reads_no_request(chores, tmp_path):
    """A process claims nothing more once its stop is requested, even if it has not read the request."""
    consumer = Consumer(chores.queue, 1, "process")
    consumer.start()
    running = chores.linger()
    (handle,) = consumer._workers
    until(lambda: handle._status.read().task_id == running.id, "the function")
    handle._request = lambda *request: None  # as if the process had not read it yet
    stop = begin_stop(consumer)
    until(lambda: handle._status.stop_requested, "the stop request")
    waiting = chores.add(1, 2)
    (tmp_path / "release").touch()
    join(stop)
    assert states(running) == "queued executing complete"
    assert states(waiting) == "queued"


@FORKS
def test_terminated_process_claims_nothing_more(chores, tmp_path, monkeypatch):
    """A process that gets SIGTERM claims nothing more; another process replaces it."""
    monkeypatch.setattr(child, "BEAT_INTERVAL_SECONDS", PATIENCE)  # no heartbeat comes meanwhile
    consumer = Consumer(chores.queue, 1, "process", start_method="fork")
    consumer.start()
    running = chores.linger()
    (handle,) = consumer._workers
    until(lambda: handle._status.read().task_id == running.id, "the function")
    pid = handle._process.pid
    os.kill(pid, signal.SIGTERM)
    later = chores.where()
    (tmp_path / "release").touch()
    assert later.get(timeout=PATIENCE) != pid
    assert states(running) == "queued executing complete"
    consumer.stop()


@FORKS
def test_nested_signal_handlers_are_restored_step_by_step():
    """A signal that is taken twice has its first handler after a fork, and is given back step by step."""
    number = signal.SIGUSR1
    before = signal.getsignal(number)

    def outer(*_): ...

    set_handler([number], outer, {number: before})
    set_handler([number], lambda *_: None, {number: outer})
    pid = os.fork()
    if pid == 0:
        os._exit(7 if signal.getsignal(number) == before else 1)
    restore_handlers([number])
    assert signal.getsignal(number) is outer
    restore_handlers([number])
    assert signal.getsignal(number) == before
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


@pytest.mark.parametrize(
    ("runs", "killed", "counted"), [(True, False, [0, 1, 0]), (True, True, [0, 0, 0]), (False, False, [1, 1, 1])]
)
def test_only_the_task_that_ran_is_counted_when_a_process_dies(chores, runs, killed, counted):
    """Of the tasks of a dead process only the running one is counted, none if the consumer has killed the process.

    If no function is known to have run, any of them may be the cause.
    """
    queue = chores.queue
    worker = ProcessWorker(WorkerContext(queue, WorkerOptions(0.1, 1, "spawn")), "w")
    results = [chores.add(number, 1) for number in range(3)]
    queue.storage.exchange((), ClaimRequest("w", queue.engine.clock.now(), LONG, limit=3))
    worker._status.set_task(queue.get(results[1].id) if runs else None)
    worker._killed = killed
    worker.expire_leases()
    queue.engine.recover()
    assert [states(result) for result in results] == ["queued executing interrupted queued"] * 3
    assert [result.task.interruptions for result in results] == counted
