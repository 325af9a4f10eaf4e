"""Consumers in this process: at work, about to stop, and the gate where their tasks wait."""

import asyncio
import threading
import time
from contextlib import contextmanager

import pytest
from support.processes import PATIENCE, until

from lifecycle import Consumer
from lifecycle.consumer.states import RUNNING
from lifecycle.consumer.workers.thread import ThreadWorker

PUT_BACK = "queued executing interrupted queued"
PROMPT = 0.5
"""Seconds: half of what an idle worker waits at the most before it looks by itself."""

on_sqlite = pytest.mark.parametrize("live", ["sqlite"], indirect=True)
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


class Hall:
    """Where async bodies wait together, until it is opened: it is seen how many there are."""

    def __init__(self):
        self.opened = False
        self.inside = self.most = 0
        self.come, self.left = [], []
        self._counting = threading.Lock()

    def enter(self, who=None):
        with self._counting:
            self.come.append(who)
            self.inside += 1
            self.most = max(self.most, self.inside)

    def leave(self, who=None):
        with self._counting:
            self.inside -= 1
            self.left.append(who)

    async def stay(self, who=None):
        self.enter(who)
        try:
            while not self.opened:
                await asyncio.sleep(0.002)
        finally:
            self.leave(who)
        return who

    def until(self, count):
        until(lambda: len(self.come) >= count, f"number {count} in the hall")


def stopping(consumer, **options):
    """A thread that stops a consumer, once that has begun to stop."""
    thread = threading.Thread(target=consumer.stop, kwargs=options, daemon=True)
    thread.start()
    until(lambda: consumer.state != RUNNING, "the stop")
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
    """The threads of its queue's workers that are alive."""
    targets = [(one, getattr(getattr(one, "_target", None), "__self__", None)) for one in threading.enumerate()]
    return [
        one for one, hand in targets if isinstance(hand, ThreadWorker) and hand.worker.engine is consumer.queue.engine
    ]


def logged(caplog, level, text):
    """What was logged at a level with a text in it."""
    return [one for one in caplog.records if one.levelno == level and text in one.getMessage()]
