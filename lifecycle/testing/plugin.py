"""The pytest plugin (pytest 8 or later), active in every environment with the package; ``-p no:lifecycle`` disables it.

- `lifecycle_clock`: a `VirtualClock`.
- `lifecycle_queue`: an empty `TaskQueue` in memory on that clock.
- `lifecycle_signals`: records a queue's signals, and fails the test at the first illegal signal.

`lifecycle.testing.assertions` (`assert_enqueued`, `refute_enqueued`) and `lifecycle.testing.inline` (`drain`,
`perform`, `testing_mode`) work with these queues and with a program's own::

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

_SIGNAL_LOGS: Final = pytest.StashKey[list[SignalLog]]()
"""The signal logs of a test."""
_MESSAGE: Final = "illegal sequence of signals: {}"


@pytest.fixture
def lifecycle_clock() -> VirtualClock:
    """A clock that stands still until the test advances it."""
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

    Its `of` returns the signals of one task, given as a task, a handle or an id. The first illegal signal fails the
    test, with the task and the position: at once, if it is sent in the thread that called this and not from a task's
    function; else at the end of the test, at the latest when its fixtures are torn down.
    """
    logs: list[SignalLog] = request.node.stash.setdefault(_SIGNAL_LOGS, [])

    def record(queue: TaskQueue) -> SignalLog:
        logs.append(SignalLog(queue, _fail_at_once))
        return logs[-1]

    yield record
    for log in logs:
        log.close()
    _fail_if_illegal(logs)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test that has passed if it has recorded an illegal signal."""
    logs = item.stash.get(_SIGNAL_LOGS, [])
    try:
        result = yield
    except pytest.fail.Exception as failure:
        for log in logs:  # reported here, and not again in the teardown
            if log.fault is not None and str(log.fault) in str(failure):
                log.fault = None
        raise
    _fail_if_illegal(logs)
    return result


def _fail_if_illegal(logs: list[SignalLog]) -> None:
    """Fail at the first illegal signal; report it only once."""
    for log in logs:
        if log.fault is not None:
            fault, log.fault = log.fault, None
            pytest.fail(_MESSAGE.format(fault), pytrace=False)


def _fail_at_once(fault: IllegalSequence) -> NoReturn:
    """Fail the test at once: `pytest.fail` raises no `Exception`, so handlers and workers do not catch it."""
    __tracebackhide__ = True
    pytest.fail(_MESSAGE.format(fault))
