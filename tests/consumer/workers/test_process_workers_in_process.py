"""Workers that are processes of this very process: what their consumer does is measured here, too."""

import importlib
import json
import os
import signal
import sys

import pytest
from support.consumers import ended, stopping
from support.processes import DELAY, LONG, PATIENCE, PROGRAMS, settled, states, until

from lifecycle import Consumer, TaskTimeout
from lifecycle.consumer.os_signals import restore_handlers, set_handler
from lifecycle.consumer.workers import process_main as child

FORKS = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
"""Python 3.12 and later warn of forks beside threads: here the child does nothing that a thread might hold up."""


@pytest.fixture
def chores(tmp_path, monkeypatch):
    """The module `chores`, where spawned processes find it, too."""
    setting = {"url": f"sqlite:///{tmp_path}/here.db", "queue": {"lease": LONG}, "folder": str(tmp_path)}
    monkeypatch.setenv("PROGRAM", json.dumps(setting | {"delay": DELAY, "wire": None}))
    monkeypatch.syspath_prepend(PROGRAMS)
    module = importlib.import_module("chores")
    yield module
    (tmp_path / "gate").touch()
    module.queue.close()
    del sys.modules["chores"]


def test_a_life(chores):
    """A consumer whose workers are processes settles what they cannot, replaces them, and ends with them."""
    queue = chores.queue
    consumer = Consumer(queue, 1, "process", max_tasks=2, grace=0.5)
    consumer.start()
    first = chores.where().get(timeout=PATIENCE)
    deaf, stubborn, poison = chores.deaf(), chores.stubborn(), chores.poison()
    assert settled(queue, deaf) == ["timeout"]
    until(lambda: stubborn.state == "executing", "the body")
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
    until(lambda: late.state == "executing", "the last body")
    stop = stopping(consumer)
    consumer.stop(graceful=False)
    ended(stop)
    assert states(late) == "queued executing interrupted queued"


def test_that_has_gone_on(chores):
    """A worker's process that has gone on to another task by the time it is to be killed is left alone, and runs on."""
    consumer = Consumer(chores.queue, 1, "process", grace=0.5)
    consumer.start()
    result = chores.asleep()
    (hand,) = consumer._workers
    until(lambda: hand._status.read().task_id == result.id, "the body")
    hand._kill_for(hand._status.read()._replace(attempt=7), TaskTimeout)
    assert hand.is_alive()
    assert states(result) == "queued executing"
    consumer.stop(graceful=False)
    assert states(result) == "queued executing interrupted queued"


def test_sent_home(chores, tmp_path):
    """A worker's process claims nothing more from the moment it is told to go home, be the message read or not."""
    consumer = Consumer(chores.queue, 1, "process")
    consumer.start()
    running = chores.linger()
    (hand,) = consumer._workers
    until(lambda: hand._status.read().task_id == running.id, "the body")
    hand._request = lambda *said: None  # as if nobody there had come to read it yet
    stop = stopping(consumer)
    until(lambda: hand._status.stop_requested, "the word")
    waiting = chores.add(1, 2)
    (tmp_path / "gate").touch()
    ended(stop)
    assert states(running) == "queued executing complete"
    assert states(waiting) == "queued"


@FORKS
def test_terminated(chores, tmp_path, monkeypatch):
    """A worker's process that gets SIGTERM claims nothing more from that moment on; the one that takes its place does."""
    monkeypatch.setattr(child, "BEAT_INTERVAL_SECONDS", PATIENCE)  # its ear does not come to it meanwhile
    consumer = Consumer(chores.queue, 1, "process", start_method="fork")
    consumer.start()
    running = chores.linger()
    (hand,) = consumer._workers
    until(lambda: hand._status.read().task_id == running.id, "the body")
    pid = hand._process.pid
    os.kill(pid, signal.SIGTERM)
    later = chores.where()
    (tmp_path / "gate").touch()
    assert later.get(timeout=PATIENCE) != pid
    assert states(running) == "queued executing complete"
    consumer.stop()


@FORKS
def test_handlers_in_handlers():
    """A signal that is taken twice does after a fork what it did before both, and is given back step by step."""
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
