"""Hosts whose clocks are apart work together: they go by the clock of the server that has their queue."""

import threading
from contextlib import closing

import pytest
from conftest import SERVERS, on_server
from hypothesis import given
from hypothesis import strategies as st
from support.forks import Fork, ignore_fork_warning
from support.strategies import patient

from lifecycle import TaskQueue
from lifecycle.clock import RemoteClock, SystemClock
from lifecycle.errors import StorageError, StorageUnavailable
from lifecycle.storage import MemoryStorage, open_storage
from lifecycle.storage.base import ClaimRequest


class World:
    """A server and a host, each with its own idea of the time; a question takes some time each way."""

    def __init__(self, server=1e9, host=2e9, there=0.01, back=0.01):
        self.server, self.host, self.there, self.back = server, host, there, back
        self.ticks, self.asked, self.away = 50.0, 0, False
        self.clock = RemoteClock(self.ask, host=lambda: self.host, ticks=lambda: self.ticks)

    def pass_(self, seconds):
        self.server, self.host, self.ticks = self.server + seconds, self.host + seconds, self.ticks + seconds

    def ask(self):
        self.asked += 1
        if self.away:
            raise StorageUnavailable("away")
        self.pass_(self.there)
        answer = self.server
        self.pass_(self.back)
        return answer

    def renewed(self):
        """Have a renewal that goes on in the background come to its end."""
        if self.clock._thread is not None:
            self.clock._thread.join()


@patient
@given(st.floats(-1e6, 1e6), st.floats(0, 2), st.floats(0, 2), st.lists(st.floats(0, 100), max_size=5))
def test_within_half_a_round_trip(offset, there, back, passing):
    """The time that it tells is the server's, to within half of a round trip, however far the host's own is off."""
    world = World(host=1e9 + offset, there=there, back=back)
    for seconds in (0.0, *passing):
        world.pass_(seconds)
        world.renewed()
        now = world.clock.now()
        world.renewed()
        assert abs(now - world.server) <= 4 * (there + back) + 1e-3
        assert abs(world.clock.now() - world.server) <= (there + back) / 2 + 1e-3
        world.renewed()


def test_it_is_asked_now_and_then():
    """The server is asked at the first use and once a minute, by a thread that nobody waits for."""
    world = World()
    for _ in range(100):
        world.clock.now()
    assert world.asked == RemoteClock.SAMPLE_COUNT
    world.server += 7.0  # it was set
    world.pass_(RemoteClock.REFRESH_SECONDS)
    gate, ask = threading.Event(), world.clock._ask
    world.clock._ask = lambda: gate.wait() and ask()
    told = [world.clock.now() for _ in range(5)]
    assert told == [pytest.approx(world.server - 7.0, abs=0.02)] * 5, "it goes on by what was known"
    gate.set()
    world.renewed()
    assert world.clock.now() == pytest.approx(world.server, abs=0.02)
    assert world.asked == 2 * RemoteClock.SAMPLE_COUNT


@pytest.mark.parametrize("step", [60.0, -60.0, 5.0])
def test_the_hosts_clock_is_set(step):
    """That somebody sets the host's clock changes nothing."""
    world = World()
    before = world.clock.now()
    world.host += step
    assert world.clock.now() == pytest.approx(before, abs=0.1)
    world.pass_(10.0)
    assert world.clock.now() == pytest.approx(world.server, abs=0.02)


def test_the_host_slept():
    """After a sleep of the host, in which its monotonic clock stood still, the server is asked at once."""
    world = World()
    world.clock.now()
    world.server, world.host = world.server + 3600, world.host + 3600
    assert world.clock.now() == pytest.approx(world.server, abs=0.02)


def test_a_server_that_is_away():
    """Before there was ever an answer it is the host's own time, and the server is not asked all the time; then the last known one goes on."""
    world = World()
    world.away = True
    assert [world.clock.now() for _ in range(5)] == [world.host] * 5
    assert world.asked == 1
    world.pass_(RemoteClock.RETRY_SECONDS)
    world.away = False
    assert world.clock.now() == pytest.approx(world.server, abs=0.02)
    world.away = True
    world.pass_(1000.0)
    for _ in range(5):
        assert world.clock.now() == pytest.approx(world.server, abs=0.02)
        world.renewed()


def test_the_best_of_a_few():
    """Of several answers at once the quickest counts: it is the nearest to the truth."""
    world = World(there=5.0, back=0.0)
    ask = world.clock._ask

    def asked():
        world.there = 0.0 if world.asked == 1 else 5.0
        return ask()

    world.clock._ask = asked
    world.clock.now()
    assert world.clock.now() == pytest.approx(world.server, abs=0.01)


@ignore_fork_warning
def test_after_a_fork():
    """A child of a process whose clock was just being renewed renews its own."""
    world = World()
    world.clock.now()
    world.pass_(RemoteClock.REFRESH_SECONDS)
    gate, ask = threading.Event(), world.clock._ask
    world.clock._ask = lambda: gate.wait() and ask()
    world.clock.now()

    def renew():
        asked, world.clock._ask = world.asked, ask
        world.clock.now()
        world.renewed()
        assert world.asked > asked

    child = Fork(renew)
    assert child.step()
    assert child.wait()
    gate.set()
    world.renewed()


@pytest.mark.parametrize("kind", SERVERS)
def test_a_servers_clock(request, kind):
    """A store on a server has that server's clock; one that only this host sees has none, and a closed one tells nothing."""
    assert MemoryStorage().clock() is None
    with closing(TaskQueue("sqlite:///never-made.db")) as queue:
        assert isinstance(queue.engine.clock, SystemClock)
    storage = open_storage(on_server(kind, request), "q")
    before = SystemClock.now()
    now = storage.clock().now()
    assert abs(now - before) < 30
    storage.close()
    with pytest.raises(StorageError):
        storage._server.now()


class OtherHost:
    """The time on a host whose clock is wrong."""

    def __init__(self, offset):
        self._offset = offset

    def __call__(self):
        return SystemClock.now() + self._offset


@pytest.mark.parametrize("kind", SERVERS)
def test_hosts_that_are_a_minute_apart(request, kind):
    """Two hosts whose clocks are a minute apart share a queue: no lease ends early or late, nothing is due too soon."""
    url, queues = on_server(kind, request), []
    for offset in (-60.0, 60.0):
        queue = TaskQueue(url, lease=20)
        queue.engine.clock._host = OtherHost(offset)
        queues.append(queue)
    behind, ahead = queues
    add = behind.task(name="later")(lambda: None)
    ahead.task(name="later")(lambda: None)
    result = add.schedule(delay=30)
    assert ahead.run_next() is None, "it is not due for another half minute"
    assert behind.run_next() is None
    assert result.state == "scheduled"
    [_, record] = result.history()
    assert abs(record.at - behind.storage._server.now()) < 10
    other = add()
    _, [(task, move)] = behind.storage.exchange((), ClaimRequest("w", behind.engine.clock.now(), behind.engine.lease))
    assert task.id == other.id
    assert ahead.engine.recover() == 0, "its lease has not ended"
    assert move.lease - ahead.engine.clock.now() == pytest.approx(20, abs=5)
    assert move.path == ("start",)
    for queue in queues:
        queue.close()
