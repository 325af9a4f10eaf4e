"""What goes wrong around a task, and not in it: hooks that exit, a store that fails in between, a hand that meddled."""

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
def test_errors_travel(error):
    """An error goes to another process and back, with all that it says."""
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 -- our own
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_a_hook_that_exits(queue, heard):
    """A post-execute hook that ends the program ends the attempt as an error: the worker goes on."""
    queue.post_execute("exits")(lambda task, value, exc: sys.exit(4))
    result = queue.task(name="plain")(lambda: 1)()
    queue.run_next()
    assert heard.story(result) == "enqueued executing error"
    assert failure(result)["error"] == "SystemExit(4)"


def test_a_body_that_exits(queue):
    """WorkerContext-execute hooks are called after a body that ends the program, too."""
    told = []
    queue.post_execute("note")(lambda task, value, exc: told.append((value, repr(exc))))
    queue.task(name="exits")(lambda: sys.exit(3))()
    assert queue.run_next().state == "error"
    assert told == [(None, "SystemExit(3)")]


class Locks:
    """A store whose locks cannot be reached while `away`; what was asked for may have been done all the same."""

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
            raise StorageUnavailable("nobody answers")

        return call


@pytest.mark.parametrize("use", ["left behind", "given back"])
def test_a_lock_that_cannot_be_given_back(queue, monkeypatch, caplog, use):
    """A task's lock that cannot be given back is given back once the store can be used, though its worker lives on."""

    @queue.task(name="takes")
    def takes():
        lock = queue.lock_task("lock")
        assert lock.acquire()
        locks.append(Locks(queue, monkeypatch, done=False))
        if use == "given back":
            lock.release()

    locks = []
    takes()
    assert queue.run_next().state == ("complete" if use == "left behind" else "error")
    assert ("has left the lock 'lock' taken" in caplog.text) == (use == "left behind")
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


def test_a_lock_that_nobody_heard_of(queue, monkeypatch):
    """A lock that was taken, but whoever asked did not hear of it, is given back with the next heartbeat."""
    locks, lock = Locks(queue, monkeypatch, done=True), queue.lock_task("lock")
    with pytest.raises(StorageUnavailable):
        lock.acquire()
    assert queue.is_locked("lock")
    locks.away = False
    queue.engine.heartbeat._beat(["w"])
    assert not queue.is_locked("lock")
    assert not lock.release()


def test_a_release_that_fails(queue, monkeypatch):
    """Outside of tasks, too, whoever could not give a lock back has let it go: it is given back without them."""
    lock = queue.lock_task("lock")
    assert lock.acquire()
    locks = Locks(queue, monkeypatch, done=False)
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
def test_a_task_that_cannot_be_let_go(queue, monkeypatch, caplog, then):
    """A task that stays held, because the store fails just then, is let go with what is done next; at the latest its hold ends."""
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


def test_a_retry_that_cannot_be_let_go(queue, monkeypatch, clock):
    """A task whose retry is announced, and that the store then does not let go of, is not held as long as its worker lives."""
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


def test_a_policy_that_was_changed_by_hand(tmp_path, caplog):
    """A retry policy that cannot be read stops nothing: its task is retried without a delay."""
    with closing(TaskQueue(f"sqlite:///{tmp_path}/q.db", clock=VirtualClock())) as queue:
        result = queue.task(name="fails", retries=1, retry_delay=900)(lambda: 1 / 0)()
        with closing(sqlite3.connect(tmp_path / "q.db", isolation_level=None)) as db:
            db.execute("update task set policy = '{'")
        drain(queue)
        assert [record.state for record in result.history()][-4:] == ["retrying", "queued", "executing", "error"]
    assert "a retry policy in the store cannot be read" in caplog.text


@pytest.mark.parametrize(
    ("spec", "file", "expected"),
    [
        (None, "/somewhere/chores.py", "chores.f"),
        ("tasks.chores", "/x.py", "tasks.chores.f"),
        (None, None, "__main__.f"),
    ],
)
def test_functions_of_the_main_module(monkeypatch, spec, file, expected):
    """A function of the program that was started is named by the module that others import it from."""
    main = types.ModuleType("__main__")
    main.__spec__ = None if spec is None else types.SimpleNamespace(name=spec)
    if file is not None:
        main.__file__ = file
    monkeypatch.setitem(sys.modules, "__main__", main)

    def f():
        pass

    f.__module__, f.__qualname__ = "__main__", "f"
    assert name_of(f) == expected
