"""The pytest plugin (pytest 8 or later), active in every environment with the package; ``-p no:lifecycle`` disables it.

- `lifecycle`: the queue that the option ``lifecycle_queue`` of the pytest configuration names, for one test with an
  empty store in memory and a virtual clock.
- `lifecycle_clock`: a `VirtualClock`.
- `lifecycle_queue`: an empty `TaskQueue` in memory on that clock.
- `lifecycle_signals`: records a queue's signals, and fails the test at the first illegal signal.

`lifecycle.testing.assertions` (`assert_enqueued`, `refute_enqueued`) and `lifecycle.testing.inline` (`drain`,
`perform`, `testing_mode`) work with these queues. With ``lifecycle_queue = "tasks:queue"``::

    def test_a_reminder_goes_out_after_a_day(lifecycle):
        sign_up("ann@example.org")
        assert_enqueued(remind, to="ann@example.org", scheduled_in=timedelta(days=1))
        lifecycle.travel(days=1)
        (task,) = lifecycle.drain()
        assert task.state == "complete"
"""

import importlib
from collections.abc import Callable, Generator, Iterator
from datetime import datetime, timedelta
from types import TracebackType
from typing import Final, NoReturn

import pytest

from lifecycle.analysis.checker import IllegalSequence
from lifecycle.core.task import Task
from lifecycle.queue import TaskQueue
from lifecycle.testing.inline import TASK_LIMIT, drain, testing_mode
from lifecycle.testing.signal_log import SignalLog
from lifecycle.virtual_clock import VirtualClock

__all__ = ["QueueInTest", "lifecycle", "lifecycle_clock", "lifecycle_queue", "lifecycle_signals"]

QUEUE_OPTION: Final = "lifecycle_queue"
UNITS: Final = ("weeks", "days", "hours", "minutes", "seconds", "milliseconds", "microseconds")
"""The units of a `timedelta`."""

_SIGNAL_LOGS: Final = pytest.StashKey[list[SignalLog]]()
"""The signal logs of a test."""
_OWN_MODULES: Final = ("lifecycle.", "_pytest.outcomes")
_MESSAGE: Final = "illegal sequence of signals: {}"


# The program's own queue ---------------------------------------------------------------------------------------------


class QueueInTest:
    """The program's queue during one test: in memory, empty at first, on a clock that stands still."""

    def __init__(self, queue: TaskQueue, clock: VirtualClock) -> None:
        """`queue`: in `testing_mode` with that clock."""
        self.queue = queue
        self.clock = clock

    @property
    def enqueued(self) -> list[Task]:
        """The tasks that the test has enqueued, in that order, each in its present state."""
        return self.queue.tasks(limit=2**31)[::-1]

    def drain(self, until: datetime | timedelta | float | None = None, limit: int = TASK_LIMIT) -> list[Task]:
        """Run all due tasks in this thread and return them: see `lifecycle.testing.drain`."""
        __tracebackhide__ = True
        return drain(self.queue, until, limit)

    def travel(self, **duration: float) -> None:
        """Advance the clock by a duration, such as ``hours=1, minutes=30``; no task runs before the next `drain`."""
        __tracebackhide__ = True
        wrong = [unit for unit in duration if unit not in UNITS]
        if wrong or not duration:
            found = f"not {', '.join(wrong)}" if wrong else "as in travel(hours=1)"
            raise TypeError(f"travel() needs a duration in {', '.join(UNITS)}, {found}")
        length = timedelta(**duration)
        if length < timedelta(0):
            raise ValueError(f"travel() cannot go back: {length.total_seconds():g} s is less than 0")
        self.clock.advance(length)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the option of the configuration."""
    parser.addini(QUEUE_OPTION, "the queue of the fixture lifecycle, as module:name, such as tasks:queue")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a name of another form; the module is imported when a test first needs the queue."""
    named = config.getini(QUEUE_OPTION)
    module, _, attribute = named.partition(":")
    if named and not all(part.isidentifier() for part in [*module.split("."), *attribute.split(".")]):
        raise pytest.UsageError(f"{_setting(named)} does not name a queue: write module:name, such as tasks:queue")


@pytest.fixture
def lifecycle(pytestconfig: pytest.Config, lifecycle_clock: VirtualClock) -> Iterator[QueueInTest]:
    """The program's queue for this test, empty and in memory on `lifecycle_clock`; its own store is not touched.

    ``lifecycle_queue = "tasks:queue"`` in the pytest configuration names the queue. `enqueued` lists the test's tasks,
    `drain()` runs those that are due, `travel(hours=1)` advances the clock.
    """
    __tracebackhide__ = True
    with testing_mode(_named_queue(pytestconfig.getini(QUEUE_OPTION)), lifecycle_clock) as queue:
        yield QueueInTest(queue, lifecycle_clock)


def _named_queue(named: str) -> TaskQueue:
    """Return the queue of the configuration; fail the test with one line if there is none."""
    module_name, _, attribute = named.partition(":")
    found, fault = _imported(module_name) if named else (None, "")
    if not named:
        fault = (
            f'the fixture lifecycle needs {QUEUE_OPTION} = "tasks:queue" in the pytest configuration: the module and '
            "the name of the program's queue; for a queue of the test alone use the fixture lifecycle_queue"
        )
    elif not fault:
        for name in attribute.split("."):
            found = getattr(found, name, None)
        if found is None:
            fault = f"{module_name!r} has no {attribute!r}"
        elif not isinstance(found, TaskQueue):
            fault = f"{attribute!r} is no TaskQueue but of the type {type(found).__name__!r}"
    if not isinstance(found, TaskQueue):
        pytest.fail(f"{_setting(named)}: {fault}" if named else fault, pytrace=False)
    return found


def _imported(name: str) -> tuple[object, str]:
    """Return a module, or the reason why it cannot be imported."""
    try:
        return importlib.import_module(name), ""
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            hint = 'if it is in the folder of the pytest configuration, write pythonpath = ["."] there'
            return None, f"there is no module {error.name!r}; {hint}"
        return None, f"{name!r} cannot be imported: {_with_place(error)}"
    except (Exception, SystemExit) as error:  # noqa: BLE001 -- of the user's module
        return None, f"{name!r} cannot be imported: {_with_place(error)}"


def _setting(named: str) -> str:
    return f"{QUEUE_OPTION} = {named!r}"


def _with_place(error: BaseException) -> str:
    """Return an error of the user's module with its file and line."""
    frames = error.__traceback__
    while frames is not None and frames.tb_next is not None:
        frames = frames.tb_next
    place = "" if frames is None else f" ({frames.tb_frame.f_code.co_filename}:{frames.tb_lineno})"
    return f"{type(error).__name__}: {error}{place}"


# Queues and signals ------------------------------------------------------------------------------------------------


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
                _end_in_users_line(failure)
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


def _end_in_users_line(failure: BaseException) -> None:
    """Cut the frames of this package from the end of a traceback."""
    last: TracebackType | None = None
    frames = failure.__traceback__
    while frames is not None:
        if not frames.tb_frame.f_globals.get("__name__", "").startswith(_OWN_MODULES):
            last = frames
        frames = frames.tb_next
    if last is not None:
        last.tb_next = None
