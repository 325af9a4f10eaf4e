"""The heartbeat of a process: it beats at an interval, soon after a failure, and at once if a beat is late."""

import threading

import pytest
from support.processes import PATIENCE

from lifecycle import StorageUnavailable
from lifecycle.execution.heartbeat import Heartbeat

INTERVAL = 1000.0
"""Seconds: longer than a test, so that the thread never beats."""


class Clocks:
    """Two clocks, which the test sets."""

    def __init__(self):
        self.seconds = [500.0, 0.0]

    def __call__(self):
        return tuple(self.seconds)


@pytest.fixture
def clocks():
    return Clocks()


@pytest.fixture
def beats():
    return []


@pytest.fixture
def heartbeat(clocks, beats):
    heartbeat = Heartbeat(beats.append, INTERVAL, clocks)
    yield heartbeat
    heartbeat.close()


@pytest.mark.parametrize("clock", [0, 1])
@pytest.mark.parametrize(("seconds", "late"), [(0.0, False), (2 * INTERVAL, False), (2 * INTERVAL + 1, True)])
def test_late_heartbeat_catches_up(heartbeat, clocks, beats, clock, seconds, late):
    """A beat that is late by any clock is made up for at once, for all workers; one in time is left to the thread."""
    heartbeat.keep("a")
    heartbeat.keep("b")
    clocks.seconds[clock] += seconds
    heartbeat.catch_up()
    heartbeat.catch_up()
    assert beats == [["a", "b"]] * late


def test_beat_that_hangs_is_late_again(clocks, beats):
    """A beat counts from its beginning: one that hung as long as a lease is made again."""

    def beat(workers):
        beats.append(workers)
        clocks.seconds[0] += 3 * INTERVAL * (len(beats) == 1)

    heartbeat = Heartbeat(beat, INTERVAL, clocks)
    heartbeat.keep("a")
    clocks.seconds[0] += 3 * INTERVAL
    for _ in range(3):
        heartbeat.catch_up()
    heartbeat.close()
    assert beats == [["a"]] * 2


def test_failed_beat_stays_late(clocks):
    """A beat that fails raises the store's error, and the next call tries again."""
    answers = iter([StorageUnavailable("away"), None])

    def beat(workers):
        if (error := next(answers)) is not None:
            raise error

    heartbeat = Heartbeat(beat, INTERVAL, clocks)
    heartbeat.keep("a")
    clocks.seconds[1] += 3 * INTERVAL
    with pytest.raises(StorageUnavailable):
        heartbeat.catch_up()
    heartbeat.catch_up()
    heartbeat.catch_up()
    heartbeat.close()
    assert next(answers, "used up") == "used up"


def test_nothing_is_late_without_workers(heartbeat, clocks, beats):
    """Without a worker there is nothing to prolong."""
    heartbeat.catch_up()
    heartbeat.keep("a")
    heartbeat.drop("a")
    clocks.seconds[0] += 3 * INTERVAL
    heartbeat.catch_up()
    assert beats == []


def test_failed_heartbeats_are_repeated_and_logged_once(caplog):
    """The thread repeats a failed beat sooner than the next one is due, and logs the first failure of a row."""
    beaten, ok = [], threading.Event()

    def beat(workers):
        beaten.append(workers)
        if len(beaten) < 4:
            raise StorageUnavailable("away")
        ok.set()

    heartbeat = Heartbeat(beat, 0.01, lambda: (0.0,))
    heartbeat.keep("a")
    assert ok.wait(PATIENCE)
    heartbeat.close()
    assert caplog.text.count("heartbeat failed") == 1
