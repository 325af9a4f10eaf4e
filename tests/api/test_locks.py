"""Locks: one holder at a time, for a time; only its owner can give it back."""

import asyncio
import threading
from datetime import timedelta

import pytest
from conftest import LEASE, another_thread
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import patient

from lifecycle import ConfigurationError, TaskLockedException, TaskQueue

# Taking it ---------------------------------------------------------------------------------------------------------


def test_a_context_manager(queue):
    """Who enters a lock holds it until they leave, however they leave; meanwhile nobody else can."""
    lock = queue.lock_task("lock")
    assert not queue.is_locked("lock")
    with lock as entered:
        assert entered is lock
        assert lock.is_locked()
        assert queue.is_locked("lock")
        assert not queue.is_locked("other")
        with pytest.raises(TaskLockedException, match="'lock' is held already"), queue.lock_task("lock"):
            raise AssertionError("two hold it")
        assert queue.is_locked("lock")
        with queue.lock_task("other"):
            assert queue.is_locked("other")
    assert not queue.is_locked("lock")
    with pytest.raises(ZeroDivisionError), lock:
        1 / 0
    assert not lock.is_locked()


def test_not_reentrant(queue):
    """Who holds a lock and asks for it again is told that it is taken, through the same object, too."""
    lock = queue.lock_task("lock")
    with lock:
        with pytest.raises(TaskLockedException), lock:
            raise AssertionError("entered twice")
        assert lock.is_locked()
        assert lock.acquire() is False
    assert not lock.is_locked()


def test_acquire_and_release(queue):
    """`acquire` says whether it took the lock, `release` whether it still had it, `clear` whether anybody had."""
    one, other = queue.lock_task("lock"), queue.lock_task("lock")
    assert one.acquire() is True
    assert other.acquire() is False
    assert other.release() is False
    assert one.is_locked()
    assert one.release() is True
    assert one.release() is False
    assert other.acquire() is True
    assert one.clear() is True
    assert one.clear() is False
    assert other.release() is False


def test_a_decorator(queue):
    """A decorated function runs under the lock, with its arguments, name and result; taken, it does not run."""
    ran = []

    @queue.lock_task("lock")
    def alone(a, *, b):
        """Alone."""
        ran.append(queue.is_locked("lock"))
        return a + b

    assert (alone.__name__, alone.__doc__) == ("alone", "Alone.")
    assert alone(1, b=2) == 3
    with queue.lock_task("lock"), pytest.raises(TaskLockedException):
        alone(1, b=2)
    assert not queue.is_locked("lock")
    assert alone(3, b=4) == 7
    assert ran == [True, True]


def test_an_async_decorator(queue):
    """An `async` function holds the lock until it has been awaited to its end, not only until it was called."""
    seen = []

    @queue.task()
    @queue.lock_task("lock")
    async def alone(a):
        seen.append(queue.is_locked("lock"))
        await asyncio.sleep(0)
        seen.append(queue.is_locked("lock"))
        return a

    async def both():
        return await asyncio.gather(alone.call_local(1), alone.call_local(2), return_exceptions=True)

    first, second = asyncio.run(both())
    assert first == 1
    assert isinstance(second, TaskLockedException)
    assert not queue.is_locked("lock")
    result = alone(5)
    queue.run_next()
    assert result.get() == 5
    assert seen == [True] * 4


# Time, and whose it is ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ttl", [10, 10.0, timedelta(seconds=10)], ids=str)
def test_ttl(queue, clock, ttl):
    """A lock with a TTL is free after it, held or not; who held it cannot give back what is another's since."""
    one, other = queue.lock_task("lock", ttl), queue.lock_task("lock", ttl)
    assert one.acquire()
    clock.advance(9.9)
    assert other.acquire() is False
    clock.advance(0.1)
    assert not queue.is_locked("lock")
    assert other.acquire() is True
    assert one.release() is False
    assert queue.is_locked("lock")
    assert other.release() is True


def test_one_object_for_many(queue, clock):
    """Who shares a lock's object does not share the lock: late holders give back their own, not their successor's."""
    lock = queue.lock_task("lock", ttl=10)
    has, done = threading.Event(), threading.Event()

    def successor():
        with lock:
            has.set()
            assert done.wait(30)
            assert queue.is_locked("lock")

    with lock:
        clock.advance(10)
        thread = another_thread(successor)
        thread.__enter__()
        assert has.wait(30)
    assert queue.is_locked("lock")
    done.set()
    thread.__exit__(None, None, None)
    assert not queue.is_locked("lock")


@pytest.mark.parametrize("ttl", [-1, "soon", float("nan"), float("inf"), True])
def test_bad_ttl(queue, ttl):
    """A TTL is seconds, or a timedelta."""
    with pytest.raises(ConfigurationError, match="ttl"):
        queue.lock_task("lock", ttl)


def test_flush(queue):
    """`flush_locks` frees the locks that it names, or all, whoever has them, and says which were taken."""
    locks = {name: queue.lock_task(name) for name in "abc"}
    for lock in locks.values():
        assert lock.acquire()
    assert queue.flush_locks("a", "never taken") == ["a"]
    assert [queue.is_locked(name) for name in "abc"] == [False, True, True]
    assert queue.flush_locks("a") == []
    assert queue.flush_locks() == ["b", "c"]
    assert queue.flush_locks() == []
    assert not any(queue.is_locked(name) for name in "abc")
    assert [lock.release() for lock in locks.values()] == [False] * 3


def test_flushed_and_taken_again(queue):
    """A lock that was flushed under its holder's feet, and taken again, is kept no longer than it is held."""
    lock = queue.lock_task("lock")
    for _ in range(3):
        assert lock.acquire()
        queue.flush_locks()
    assert lock.acquire()
    assert lock.release()
    assert queue.engine.heartbeat._counts == {}


def test_kept_alive(tmp_path):
    """A lock that is held outside of tasks is kept as long as its process lives, and no longer than it is held."""
    queue = TaskQueue(f"sqlite:///{tmp_path}/app.db", lease=0.3)
    with queue.lock_task("lock"):
        ((*_, first, _, _),) = queue.storage.locks(0)
        while queue.storage.locks(0)[0].until == first:  # until the first heartbeat
            pass
        assert queue.is_locked("lock")
    assert not queue.is_locked("lock")
    assert queue.engine.heartbeat._counts == {}
    queue.close()


@patient
@given(
    st.sampled_from(["memory", "sqlite"]),
    st.lists(
        st.tuples(
            st.sampled_from(["take", "take", "give", "wait", "flush"]),
            st.integers(0, 2),
            st.sampled_from([None, 5, 20]),
        ),
        max_size=20,
    ),
)
def test_any_order(new, kind, steps):
    """Whatever is taken, given back, flushed and waited for: at most one holds a lock, and exactly who should."""
    with new(kind) as queue:
        clock, holder, end = queue.engine.clock, None, 0.0
        locks = {(n, ttl): queue.lock_task("lock", ttl) for n in range(3) for ttl in (None, 5, 20)}
        for step, n, ttl in steps:
            lock, now = locks[n, ttl], clock.now()
            if holder and end <= now:
                holder = None
            if step == "take":
                assert lock.acquire() is (holder is None)
                if holder is None:
                    holder, end = lock, now + (LEASE if ttl is None else ttl)
            elif step == "give":
                had = lock.release()
                assert had or lock is not holder
                if had and lock is holder:
                    holder = None
            elif step == "flush":
                assert queue.flush_locks() == (["lock"] if holder else [])
                holder = None
            else:
                clock.advance(5)
            assert queue.is_locked("lock") is (holder is not None and end > clock.now())
        queue.flush_locks()
        while any([lock.release() for lock in locks.values()]):
            pass
