"""Consumers in the process of the tests, and task functions that block until a test releases them."""

import asyncio
import threading
import time
from contextlib import contextmanager

import pytest
from support.processes import PATIENCE, until

from lifecycle import Consumer
from lifecycle.consumer.states import RUNNING
from lifecycle.consumer.workers.thread import ThreadWorker

REQUEUED_STATES = "queued executing interrupted queued"
PROMPT_SECONDS = 0.5
"""Half of the time after which an idle worker asks the store by itself."""

on_sqlite = pytest.mark.parametrize("live", ["sqlite"], indirect=True)
"""Mark for slow tests that need only one kind of store."""


@contextmanager
def running(queue, workers=1, **options):
    """Run a consumer; in the end interrupt its tasks and wait for its stop."""
    consumer = Consumer(queue, workers, **options)
    consumer.start()
    try:
        yield consumer
    finally:
        stop = threading.Thread(target=consumer.stop, args=(False,), daemon=True)
        stop.start()
        join(stop)


class Blocker:
    """Task function, `run`, that blocks until `release`, and can be interrupted meanwhile."""

    def __init__(self):
        self.is_released = False
        self.started, self.ended = [], []

    def release(self):
        self.is_released = True

    def run(self, name=None):
        self.started.append(name)
        try:
            while not self.is_released:
                time.sleep(0.002)
        finally:
            self.ended.append(name)

    def wait_until_started(self, count):
        """Wait until `count` calls have started."""
        until(lambda: len(self.started) >= count, f"call {count} of the blocker")


class Outage:
    """Makes some operations of a store fail while `on`."""

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


class AsyncBlocker:
    """Async task function, `run`, that waits until it is released; counts the calls that run at the same time."""

    def __init__(self):
        self.is_released = False
        self.running = self.most_running = 0
        self.started, self.ended = [], []
        self._mutex = threading.Lock()

    def start(self, name=None):
        with self._mutex:
            self.started.append(name)
            self.running += 1
            self.most_running = max(self.most_running, self.running)

    def end(self, name=None):
        with self._mutex:
            self.running -= 1
            self.ended.append(name)

    async def run(self, name=None):
        self.start(name)
        try:
            while not self.is_released:
                await asyncio.sleep(0.002)
        finally:
            self.end(name)
        return name

    def wait_until_started(self, count):
        """Wait until `count` calls have started."""
        until(lambda: len(self.started) >= count, f"call {count} of the async blocker")


def begin_stop(consumer, **options):
    """Stop a consumer in another thread; return the thread once the stop has begun."""
    thread = threading.Thread(target=consumer.stop, kwargs=options, daemon=True)
    thread.start()
    until(lambda: consumer.state != RUNNING, "the stop")
    return thread


def join(thread):
    """Wait for a thread's end; fail if the thread does not end."""
    thread.join(PATIENCE)
    assert not thread.is_alive()


def plus(a, b):
    return a + b


def now():
    return time.time()


def worker_threads(consumer):
    """Return the living threads of the workers of the consumer's queue."""
    targets = [(one, getattr(getattr(one, "_target", None), "__self__", None)) for one in threading.enumerate()]
    return [
        one
        for one, handle in targets
        if isinstance(handle, ThreadWorker) and handle.worker.engine is consumer.queue.engine
    ]


def logged(caplog, level, text):
    """Return the log records of a level that contain a text."""
    return [one for one in caplog.records if one.levelno == level and text in one.getMessage()]
