"""Hosts with different clocks share a queue: all use the clock of the queue's server."""

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


class SimulatedHosts:
    """A server and a host with different times; a request takes `there` seconds, its answer `back` seconds."""

    def __init__(self, server=1e9, host=2e9, there=0.01, back=0.01):
        self.server, self.host, self.there, self.back = server, host, there, back
        self.ticks, self.requests, self.is_unreachable = 50.0, 0, False
        self.clock = RemoteClock(self.ask, host=lambda: self.host, ticks=lambda: self.ticks)

    def advance(self, seconds):
        self.server, self.host, self.ticks = self.server + seconds, self.host + seconds, self.ticks + seconds

    def ask(self):
        self.requests += 1
        if self.is_unreachable:
            raise StorageUnavailable("away")
        self.advance(self.there)
        answer = self.server
        self.advance(self.back)
        return answer

    def join_refresh(self):
        """Wait for the end of a refresh in the background."""
        if self.clock._thread is not None:
            self.clock._thread.join()


@patient
@given(st.floats(-1e6, 1e6), st.floats(0, 2), st.floats(0, 2), st.lists(st.floats(0, 100), max_size=5))
def test_clock_differs_from_the_servers_by_half_a_round_trip_at_most(offset, there, back, passing):
    """The time is the server's, to within half a round trip, whatever the host's own time is."""
    hosts = SimulatedHosts(host=1e9 + offset, there=there, back=back)
    for seconds in (0.0, *passing):
        hosts.advance(seconds)
        hosts.join_refresh()
        now = hosts.clock.now()
        hosts.join_refresh()
        assert abs(now - hosts.server) <= 4 * (there + back) + 1e-3
        assert abs(hosts.clock.now() - hosts.server) <= (there + back) / 2 + 1e-3
        hosts.join_refresh()


def test_server_is_asked_at_the_first_use_and_once_a_minute():
    """The server is asked at the first use and once a minute, by a thread that no caller waits for."""
    hosts = SimulatedHosts()
    for _ in range(100):
        hosts.clock.now()
    assert hosts.requests == RemoteClock.SAMPLE_COUNT
    hosts.server += 7.0  # it was set
    hosts.advance(RemoteClock.REFRESH_SECONDS)
    gate, ask = threading.Event(), hosts.clock._ask
    hosts.clock._ask = lambda: gate.wait() and ask()
    told = [hosts.clock.now() for _ in range(5)]
    assert told == [pytest.approx(hosts.server - 7.0, abs=0.02)] * 5, "the last known offset is used"
    gate.set()
    hosts.join_refresh()
    assert hosts.clock.now() == pytest.approx(hosts.server, abs=0.02)
    assert hosts.requests == 2 * RemoteClock.SAMPLE_COUNT


@pytest.mark.parametrize("step", [60.0, -60.0, 5.0])
def test_change_of_the_hosts_clock_has_no_effect(step):
    """A change of the host's clock does not change the time."""
    hosts = SimulatedHosts()
    before = hosts.clock.now()
    hosts.host += step
    assert hosts.clock.now() == pytest.approx(before, abs=0.1)
    hosts.advance(10.0)
    assert hosts.clock.now() == pytest.approx(hosts.server, abs=0.02)


def test_server_is_asked_after_the_host_slept():
    """After a sleep of the host, during which its monotonic clock stood still, the server is asked at once."""
    hosts = SimulatedHosts()
    hosts.clock.now()
    hosts.server, hosts.host = hosts.server + 3600, hosts.host + 3600
    assert hosts.clock.now() == pytest.approx(hosts.server, abs=0.02)


def test_unreachable_server_leaves_the_hosts_time_or_the_last_known_offset():
    """Before the first answer the time is the host's, and the server is not asked at each call; later the last known offset is used."""
    hosts = SimulatedHosts()
    hosts.is_unreachable = True
    assert [hosts.clock.now() for _ in range(5)] == [hosts.host] * 5
    assert hosts.requests == 1
    hosts.advance(RemoteClock.RETRY_SECONDS)
    hosts.is_unreachable = False
    assert hosts.clock.now() == pytest.approx(hosts.server, abs=0.02)
    hosts.is_unreachable = True
    hosts.advance(1000.0)
    for _ in range(5):
        assert hosts.clock.now() == pytest.approx(hosts.server, abs=0.02)
        hosts.join_refresh()


def test_quickest_of_several_answers_counts():
    """The quickest of several answers counts: it is the most exact."""
    hosts = SimulatedHosts(there=5.0, back=0.0)
    ask = hosts.clock._ask

    def asked():
        hosts.there = 0.0 if hosts.requests == 1 else 5.0
        return ask()

    hosts.clock._ask = asked
    hosts.clock.now()
    assert hosts.clock.now() == pytest.approx(hosts.server, abs=0.01)


@ignore_fork_warning
def test_child_of_a_fork_refreshes_its_own_clock():
    """A child whose parent was refreshing its clock at the fork refreshes its own clock."""
    hosts = SimulatedHosts()
    hosts.clock.now()
    hosts.advance(RemoteClock.REFRESH_SECONDS)
    gate, ask = threading.Event(), hosts.clock._ask
    hosts.clock._ask = lambda: gate.wait() and ask()
    hosts.clock.now()

    def refresh():
        requests, hosts.clock._ask = hosts.requests, ask
        hosts.clock.now()
        hosts.join_refresh()
        assert hosts.requests > requests

    child = Fork(refresh)
    assert child.step()
    assert child.wait()
    gate.set()
    hosts.join_refresh()


@pytest.mark.parametrize("kind", SERVERS)
def test_only_servers_have_a_clock(request, kind):
    """A store on a server has the server's clock, a store on this host has none; a closed store raises `StorageError`."""
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


class ShiftedClock:
    """The clock of a host whose time is wrong by `offset` seconds."""

    def __init__(self, offset):
        self._offset = offset

    def __call__(self):
        return SystemClock.now() + self._offset


@pytest.mark.parametrize("kind", SERVERS)
def test_hosts_with_clocks_a_minute_apart_share_a_queue(request, kind):
    """Two hosts with clocks a minute apart share a queue: no lease ends early or late, no task is due early."""
    url, queues = on_server(kind, request), []
    for offset in (-60.0, 60.0):
        queue = TaskQueue(url, lease=20)
        queue.engine.clock._host = ShiftedClock(offset)
        queues.append(queue)
    behind, ahead = queues
    add = behind.task(name="later")(lambda: None)
    ahead.task(name="later")(lambda: None)
    result = add.schedule(delay=30)
    assert ahead.run_next() is None, "the task is due in half a minute"
    assert behind.run_next() is None
    assert result.state == "scheduled"
    [_, record] = result.history()
    assert abs(record.at - behind.storage._server.now()) < 10
    other = add()
    _, [(task, move)] = behind.storage.exchange((), ClaimRequest("w", behind.engine.clock.now(), behind.engine.lease))
    assert task.id == other.id
    assert ahead.engine.recover() == 0, "the lease has not ended"
    assert move.lease - ahead.engine.clock.now() == pytest.approx(20, abs=5)
    assert move.path == ("start",)
    for queue in queues:
        queue.close()
