"""A queue object that is dropped without `close` leaves nothing behind: no thread, no descriptor, no memory."""

import gc
import threading
import weakref
from itertools import count
from operator import gt, le
from pathlib import Path

import pytest
from support.postgres import postgres_store_url, unused_name
from support.redis_server import redis_store_url

from lifecycle import TaskQueue
from lifecycle.clock import monotonic, pause
from lifecycle.storage.base import Channel

QUEUES = 20
PATIENCE_SECONDS = 60
DESCRIPTORS = Path("/proc/self/fd")


@pytest.fixture(params=["memory", "sqlite", "redis", "postgres"])
def url(request, tmp_path):
    """Return the URL of an empty store, for each kind."""
    if request.param == "memory":
        return "memory://"
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/q.db?synchronous=off"
    if request.param == "redis":
        request.getfixturevalue("redis_url")
        return redis_store_url()
    return postgres_store_url(request.getfixturevalue("postgres"), schema=unused_name())


def use(url, name):
    """Run a task with its heartbeat, and wait for a change; return a weak reference to the queue."""
    queue = TaskQueue(url, name=name)
    task = queue.task(name="add")(lambda a, b: a + b)
    result = task(1, 2)
    queue.run_next()
    assert result.get() == 3
    storage = queue.storage
    storage.wait(Channel.WORK, storage.generation(Channel.WORK), 0.01)
    return weakref.ref(queue), weakref.ref(storage)


def left():
    """Return the number of threads and of open descriptors."""
    gc.collect()
    return threading.active_count(), len(list(DESCRIPTORS.iterdir()))


@pytest.mark.skipif(not DESCRIPTORS.exists(), reason="counts the descriptors in /proc")
def test_dropped_queues_leave_no_thread_and_no_descriptor(url):
    """Many queues that ran tasks and waited, and were dropped, leave as many threads and descriptors as before."""
    numbers = count()
    use(url, f"first {next(numbers)}")  # loads drivers
    before = left()
    dropped = [use(url, f"q{next(numbers)}") for _ in range(QUEUES)]
    deadline = monotonic() + PATIENCE_SECONDS
    while any(map(gt, now := left(), before)) and monotonic() < deadline:
        pause(0.05)
    assert all(map(le, now, before))
    assert all(reference() is None for references in dropped for reference in references)
