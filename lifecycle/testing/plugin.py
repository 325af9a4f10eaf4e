"""Fixtures for pytest (8 or later), there as soon as the package is installed; ``-p no:lifecycle`` leaves them out.

- `lifecycle_clock`: a `VirtualClock`.
- `lifecycle_queue`: an empty `TaskQueue` in memory on that clock.
- `lifecycle_signals`: records a queue's signals, and fails the test at the first that the table does not have there.

What a test does with a queue, be it one of these or the program's own, stands in `lifecycle.testing.assertions`
(`assert_enqueued`, `refute_enqueued`) and `lifecycle.testing.inline` (`drain`, `perform`, `testing_mode`)::

    def test_a_reminder_goes_out_after_a_day(lifecycle_clock, lifecycle_signals):
        with testing_mode(app.queue, lifecycle_clock):
            signals = lifecycle_signals(app.queue)
            app.sign_up("ann@example.org")
            reminder = assert_enqueued(app.remind, "ann@example.org")
            drain(app.queue, until=timedelta(days=1))
            assert signals.of(reminder)[-1] == SIGNAL_COMPLETE
"""

from collections.abc import Callable, Generator, Iterator
from typing import Final, NoReturn

import pytest

from lifecycle.analysis.checker import IllegalSequence
from lifecycle.queue import TaskQueue
from lifecycle.testing.signal_log import SignalLog
from lifecycle.virtual_clock import VirtualClock

__all__ = ["lifecycle_clock", "lifecycle_queue", "lifecycle_signals"]

_RECORDINGS: Final = pytest.StashKey[list[SignalLog]]()
"""Of a test: whose signals it records."""
_MESSAGE: Final = "illegal sequence of signals: {}"


@pytest.fixture
def lifecycle_clock() -> VirtualClock:
    """A clock that stands still until the test moves it."""
    return VirtualClock()


@pytest.fixture
def lifecycle_queue(lifecycle_clock: VirtualClock) -> Iterator[TaskQueue]:
    """An empty queue in memory on `lifecycle_clock`, closed after the test."""
    queue = TaskQueue("memory://", clock=lifecycle_clock)
    yield queue
    queue.close()


@pytest.fixture
def lifecycle_signals(request: pytest.FixtureRequest) -> Iterator[Callable[[TaskQueue], SignalLog]]:
    """``lifecycle_signals(queue)`` records the queue's signals from then on: a list of ``(signal, task id)``.

    Its `of` gives those of one task, by the task, its handle or its id. The first signal that is illegal after those
    before it fails the test, and names task and position: at once, if it is sent in the thread that called this and not
    from a task's body, else at the end of the test, at the latest when its fixtures are torn down.
    """
    recordings: list[SignalLog] = request.node.stash.setdefault(_RECORDINGS, [])

    def record(queue: TaskQueue) -> SignalLog:
        recordings.append(SignalLog(queue, _strike))
        return recordings[-1]

    yield record
    for heard in recordings:
        heard.close()
    _judge(recordings)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """A test that has passed fails after all, if what it has recorded is not legal."""
    recordings = item.stash.get(_RECORDINGS, [])
    try:
        result = yield
    except pytest.fail.Exception as failure:
        for heard in recordings:  # it was said here, and need not be said again
            if heard.fault is not None and str(heard.fault) in str(failure):
                heard.fault = None
        raise
    _judge(recordings)
    return result


def _judge(recordings: list[SignalLog]) -> None:
    """Fail because of the first that is not legal; it is told once."""
    for heard in recordings:
        if heard.fault is not None:
            fault, heard.fault = heard.fault, None
            pytest.fail(_MESSAGE.format(fault), pytrace=False)


def _strike(fault: IllegalSequence) -> NoReturn:
    """Fail the test; what `pytest.fail` raises is no `Exception`, and so passes through handlers and workers."""
    __tracebackhide__ = True
    pytest.fail(_MESSAGE.format(fault))
