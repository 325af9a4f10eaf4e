"""The small table of values, and the limits, of a queue with Huey's names, on each store."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from lifecycle import ConfigurationError, RateLimitExceeded, StorageRefused, Unserializable
from lifecycle.huey import Huey
from lifecycle.huey.key_values import MAX_BYTES
from lifecycle.testing import VirtualClock


def test_a_value_is_stored_read_and_removed(huey):
    """`get` returns the value of a key and removes it, or leaves it with `peek`; `put` replaces a value."""
    for value in ("text", 1.5, None, [0, 1], (2, (3,)), {"a": b"\x00"}, {1, 2}):
        huey.put("key", "another")
        huey.put("key", value)
        assert huey.get("key", peek=True) == value
        assert huey.get("key") == value
        assert huey.get("key") is None
    huey.put("key", 1)
    assert huey.delete("key")
    assert not huey.delete("key")
    assert huey.put_if_empty("key", 1)
    assert not huey.put_if_empty("key", 2)
    assert huey.get("key") == 1


def test_one_reader_gets_a_value(huey):
    """Of several readers at a time one gets the value; of several writers one finds the key empty."""
    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(lambda n: huey.put_if_empty("key", n), range(8))) == [False] * 7 + [True]
        assert len([value for value in pool.map(lambda _: huey.get("key"), range(8)) if value is not None]) == 1


def test_values_and_limits_are_no_locks(huey):
    """A value has no lock's name: neither `flush_locks` nor a lock of the key's name touches it; `flush` removes it."""
    huey.put("key", 1)
    huey.rate_limit("key", 1, 60).acquire()
    with huey.lock_task("key"):
        assert huey.flush_locks() == {"key"}
    assert not huey.is_locked("key")
    assert huey.get("key", peek=True) == 1
    with pytest.raises(ConfigurationError, match="the library's own"):
        huey.lock_task("\x1fvalue\x1fkey")
    huey.flush()
    assert huey.get("key") is None


def test_a_value_is_refused_where_it_is_put(huey):
    """A value that cannot be serialized, a large one, and a key that is no text raise an error that says so."""
    with pytest.raises(Unserializable):
        huey.put("key", object())
    with pytest.raises(StorageRefused, match=r"the value has 65,5\d\d bytes"):
        huey.put("key", b"x" * MAX_BYTES)
    with pytest.raises(ConfigurationError, match="key=1: must be a str"):
        huey.get(1)


def test_a_limit_counts_in_windows(huey):
    """A limit lets so many runs pass in a window of time, in all threads together, and then says how long to wait."""
    limit = huey.rate_limit("mail", 3, 60, retry=False)
    with ThreadPoolExecutor(4) as pool:
        passed = list(pool.map(lambda _: not pool_error(limit.acquire), range(8)))
    assert (passed.count(True), limit.current_usage()) == (3, 3)
    error = pool_error(limit.acquire)
    assert (error.key, error.retry) == ("mail", False)
    assert 0 < error.delay <= 60
    limit.reset()
    with limit:
        assert huey.rate_limit("mail", 3, 60).current_usage() == 1


def pool_error(call):
    """Return the exception of a call, if any."""
    try:
        call()
    except RateLimitExceeded as error:
        return error
    return None


def test_a_limit_opens_with_the_next_window():
    """A task beyond the limit is run in the next window, and keeps its retries."""
    clock = VirtualClock(1_000_000_030.0)
    huey = Huey(url="memory://")
    engine = huey.queue.engine
    engine.clock = clock

    @huey.task(retries=1)
    @huey.rate_limit("mail", 1, 60)
    def send(to):
        return to

    results = [send("a"), send("b")]
    assert [huey.queue.run_next().state for _ in results] == ["complete", "scheduled"]
    assert results[1].get() is None
    task = huey.queue.get(results[1].id)
    assert (task.eta % 60, task.retries) == (0, 1)
    clock.advance(task.eta - clock.now())
    assert huey.queue.run_next().state == "complete"
    huey.close()


def test_limits_are_refused_where_they_are_written(huey):
    """A limit around a task, of a negative number or of no time, is refused."""
    with pytest.raises(ConfigurationError, match="put @huey"):
        huey.rate_limit("mail", 1, 60)(huey.task()(len_of))
    with pytest.raises(ConfigurationError, match="limit=-1"):
        huey.rate_limit("mail", -1, 60)
    with pytest.raises(ConfigurationError, match="per=0"):
        huey.rate_limit("mail", 1, 0)


def len_of(text):
    return len(text)
