"""Locks: one holder at a time, for a limited time; only the owner can release a lock."""

import asyncio
import threading
from datetime import timedelta

import pytest
from conftest import LEASE, another_thread
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import patient

from lifecycle import ConfigurationError, TaskLockedException, TaskQueue

# Acquire and release -------------------------------------------------------------------------------------------------


def test_lock_is_held_inside_its_with_block(queue):
    """A lock is held, against all others, from the beginning to the end of its with block, however the block ends."""
    lock = queue.lock_task("lock")
    assert not queue.is_locked("lock")
    with lock as entered:
        assert entered is lock
        assert lock.is_locked()
        assert queue.is_locked("lock")
        assert not queue.is_locked("other")
        with pytest.raises(TaskLockedException, match="'lock' is held already"), queue.lock_task("lock"):
            raise AssertionError("two holders")
        assert queue.is_locked("lock")
        with queue.lock_task("other"):
            assert queue.is_locked("other")
    assert not queue.is_locked("lock")
    with pytest.raises(ZeroDivisionError), lock:
        1 / 0
    assert not lock.is_locked()


def test_lock_is_not_reentrant(queue):
    """A holder that acquires its lock again is refused, through the same object, too."""
    lock = queue.lock_task("lock")
    with lock:
        with pytest.raises(TaskLockedException), lock:
            raise AssertionError("entered twice")
        assert lock.is_locked()
        assert lock.acquire() is False
    assert not lock.is_locked()


def test_acquire_release_and_clear_return_whether_they_succeeded(queue):
    """`acquire` returns whether it took the lock, `release` whether it still had it, `clear` whether it was taken."""
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


def test_decorated_function_runs_under_the_lock(queue):
    """A decorated function runs under the lock, with its arguments, name and result; if the lock is taken it does not run."""
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


def test_decorated_async_function_holds_the_lock_until_it_ends(queue):
    """A decorated `async` function holds the lock until its coroutine has ended."""
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


# Time and ownership --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ttl", [10, 10.0, timedelta(seconds=10)], ids=str)
def test_lock_is_free_after_its_ttl(queue, clock, ttl):
    """A lock with a TTL is free after the TTL; its late holder cannot release the lock of the next holder."""
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


def test_late_holder_releases_only_its_own_lock(queue, clock):
    """Holders that share a lock object release their own lock only, not that of the next holder."""
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
def test_bad_ttl_is_refused(queue, ttl):
    """A TTL that is neither seconds nor a timedelta is refused."""
    with pytest.raises(ConfigurationError, match="ttl"):
        queue.lock_task("lock", ttl)


def test_flush_locks_frees_named_or_all_locks(queue):
    """`flush_locks` frees the named locks, or all, whatever their holders, and returns those that were taken."""
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


def test_flushed_and_retaken_lock_is_kept_no_longer_than_held(queue):
    """A lock that was flushed while it was held, and taken again, is kept alive no longer than it is held."""
    lock = queue.lock_task("lock")
    for _ in range(3):
        assert lock.acquire()
        queue.flush_locks()
    assert lock.acquire()
    assert lock.release()
    assert queue.engine.heartbeat._counts == {}


def test_lock_outside_of_tasks_is_kept_alive_by_its_process(tmp_path):
    """A lock that is held outside of tasks is kept alive by its process, no longer than it is held."""
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
def test_any_order_of_lock_operations_leaves_at_most_one_holder(new, kind, steps):
    """In any order of acquire, release, flush and waiting a lock has at most one holder, and the right one."""
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
