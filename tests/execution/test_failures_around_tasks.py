"""Failures around a task and not in it: hooks that exit, a store that fails in between, a damaged row."""

import logging
import pickle
import sqlite3
import sys
import types
from contextlib import closing

import pytest
from conftest import Heard, drain, failure

from lifecycle import (
    DuplicateTask,
    IllegalTransition,
    StorageFull,
    StorageUnavailable,
    TaskException,
    TaskQueue,
    Unserializable,
)
from lifecycle.execution.worker import Worker
from lifecycle.function import name_of
from lifecycle.testing import VirtualClock

ERRORS = [
    DuplicateTask("7"),
    Unserializable("a set is not supported", "argument 'a' of add"),
    TaskException({"id": "7", "error": "ValueError()"}),
    IllegalTransition(state="revoked", trigger="start", allowed=(), subject="task 7"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_survive_pickling(error):
    """An error can be pickled and unpickled with all its fields."""
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 -- the test's own data
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_hook_that_exits_ends_the_attempt_as_error(queue, heard):
    """A post-execute hook that raises `SystemExit` ends the attempt as an error: the worker goes on."""
    queue.post_execute("exits")(lambda task, value, exc: sys.exit(4))
    result = queue.task(name="plain")(lambda: 1)()
    queue.run_next()
    assert heard.story(result) == "enqueued executing error"
    assert failure(result)["error"] == "SystemExit(4)"


def test_post_execute_hook_is_called_after_function_that_exits(queue):
    """Post-execute hooks are called after a function that raises `SystemExit`, too."""
    called = []
    queue.post_execute("note")(lambda task, value, exc: called.append((value, repr(exc))))
    queue.task(name="exits")(lambda: sys.exit(3))()
    assert queue.run_next().state == "error"
    assert called == [(None, "SystemExit(3)")]


class UnreachableLocks:
    """Makes calls of a store's locks fail while `away`; if `done`, the store performs the failing call all the same."""

    def __init__(self, queue, monkeypatch, *, done):
        self.away, self._done = True, done
        for name in ("lock", "unlock"):
            monkeypatch.setattr(queue.engine.storage, name, self._failing(getattr(queue.engine.storage, name)))

    def _failing(self, operation):
        def call(*args):
            if not self.away:
                return operation(*args)
            if self._done:
                operation(*args)
            raise StorageUnavailable("no answer")

        return call


@pytest.mark.parametrize("use", ["left taken", "released"])
def test_lock_that_cannot_be_released_is_released_when_the_store_is_back(queue, monkeypatch, caplog, use):
    """A task's lock that cannot be released is released when the store is back, even while its worker lives on."""

    @queue.task(name="takes")
    def takes():
        lock = queue.lock_task("lock")
        assert lock.acquire()
        locks.append(UnreachableLocks(queue, monkeypatch, done=False))
        if use == "released":
            lock.release()

    locks = []
    takes()
    assert queue.run_next().state == ("complete" if use == "left taken" else "error")
    assert ("has left the lock 'lock' taken" in caplog.text) == (use == "left taken")
    for _ in range(3):  # it is kept alive as long as its worker is
        queue.engine.clock.advance(20)
        queue.storage.extend([task.worker for task in queue.storage.tasks()], queue.engine.clock.now() + 30)
        assert queue.run_next() is None
    assert queue.is_locked("lock")
    locks[0].away = False
    queue.task(name="plain")(lambda: 1)()
    assert queue.run_next().state == "complete"
    assert not queue.is_locked("lock")
    assert not queue.engine.deferred


def test_lock_whose_acquire_failed_is_released_by_the_next_heartbeat(queue, monkeypatch):
    """A lock that was taken although `acquire` raised is released by the next heartbeat."""
    locks, lock = UnreachableLocks(queue, monkeypatch, done=True), queue.lock_task("lock")
    with pytest.raises(StorageUnavailable):
        lock.acquire()
    assert queue.is_locked("lock")
    locks.away = False
    queue.engine.heartbeat._beat(["w"])
    assert not queue.is_locked("lock")
    assert not lock.release()


def test_failed_release_outside_of_tasks_is_repeated_by_a_heartbeat(queue, monkeypatch):
    """A lock that could not be released outside of tasks is no longer held, and the next heartbeat releases it."""
    lock = queue.lock_task("lock")
    assert lock.acquire()
    locks = UnreachableLocks(queue, monkeypatch, done=False)
    with pytest.raises(StorageUnavailable):
        lock.release()
    assert not lock.release()
    queue.engine.heartbeat._beat([queue.engine.process_name()])
    assert queue.is_locked("lock")
    locks.away = False
    queue.engine.heartbeat._beat([queue.engine.process_name()])
    assert lock.acquire()
    assert lock.release()


@pytest.mark.parametrize("then", ["a heartbeat", "another task", "nothing"])
def test_held_task_is_released_by_the_next_call_or_when_its_hold_ends(queue, monkeypatch, caplog, then):
    """A task that stays held because the store fails is released by the next heartbeat or call, or as the hold ends."""
    caplog.set_level(logging.WARNING)
    heard = Heard(queue)

    def full(tasks, now):
        raise StorageFull("no space left")

    plain = queue.task(name="plain")(lambda number: number)
    with monkeypatch.context() as patch:
        patch.setattr(queue.storage, "release", full)
        result = plain(1)
        queue.engine.heartbeat._beat(["w"])
    assert heard.of(result) == ["enqueued"]
    assert "1 tasks stay held a little longer" in caplog.text
    assert queue.run_next() is None
    {
        "a heartbeat": lambda: queue.engine.heartbeat._beat(["w"]),
        "another task": lambda: plain(2),
        "nothing": lambda: queue.engine.clock.advance(31),
    }[then]()
    drain(queue)
    assert result.get() == 1


def test_held_retry_is_released_although_its_worker_lives(queue, monkeypatch, clock):
    """A retried task that stays held because the store fails is released although the worker lives on."""
    Heard(queue)
    worker = Worker(queue.engine, "w")

    @queue.task(name="fails", retries=1)
    def fails():
        if len(tried) < 2:
            tried.append(1)
            raise ValueError("uh-oh")

    def full(tasks, now):
        raise StorageFull("no space left")

    tried = [1]
    result = fails()
    with monkeypatch.context() as patch:
        patch.setattr(queue.storage, "release", full)
        worker.work(lambda: True)
        queue.engine.heartbeat._beat(["w"])
    for _ in range(3):
        clock.advance(20)
        queue.engine.heartbeat._beat(["w"])
    worker.work(lambda: True)
    assert result.state == "complete"


def test_unreadable_retry_policy_means_retry_without_delay(tmp_path, caplog):
    """A task whose stored retry policy cannot be read is retried without a delay."""
    with closing(TaskQueue(f"sqlite:///{tmp_path}/q.db", clock=VirtualClock())) as queue:
        result = queue.task(name="fails", retries=1, retry_delay=900)(lambda: 1 / 0)()
        with closing(sqlite3.connect(tmp_path / "q.db", isolation_level=None)) as db:
            db.execute("update task set policy = '{'")
        drain(queue)
        assert [record.state for record in result.history()][-4:] == ["retrying", "queued", "executing", "error"]
    assert "cannot read a stored retry policy" in caplog.text


@pytest.mark.parametrize(
    ("spec", "file", "expected"),
    [
        (None, "/somewhere/chores.py", "chores.f"),
        ("tasks.chores", "/x.py", "tasks.chores.f"),
        (None, None, "__main__.f"),
    ],
)
def test_function_of_main_module_is_named_by_its_import_name(monkeypatch, spec, file, expected):
    """A function of the main module is named by the module that other programs import it from."""
    main = types.ModuleType("__main__")
    main.__spec__ = None if spec is None else types.SimpleNamespace(name=spec)
    if file is not None:
        main.__file__ = file
    monkeypatch.setitem(sys.modules, "__main__", main)

    def f():
        pass

    f.__module__, f.__qualname__ = "__main__", "f"
    assert name_of(f) == expected
