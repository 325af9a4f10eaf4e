"""Fixtures of all tests: queues on each kind of store, task functions, workers, and the signals that queues send."""

import itertools
import os
import signal
import sys
import threading
from contextlib import contextmanager

import pytest
from support import profiles
from support.command_line import TASKS
from support.postgres import postgres_store_url, temporary_database, unused_name
from support.processes import LONG
from support.redis_server import SERVER, delete_test_keys, redis_store_url, require_server
from support.table_modules import FAULTY, OWN

from lifecycle import LIFECYCLE, TaskException, TaskQueue
from lifecycle.consumer.cli.main import main
from lifecycle.execution.worker import Worker
from lifecycle.storage.base import Channel
from lifecycle.testing import VirtualClock, drain
from lifecycle.testing.signal_log import SignalLog

pytest_plugins = ["pytester", "lifecycle.testing.plugin"]

KINDS = tuple(os.environ.get("LIFECYCLE_TEST_KINDS", "memory sqlite").split())
"""Kinds of store on which the tests of the public API run. Servers take time and are left out unless the environment names
them: the adapters of servers have tests of their own."""
NOW = 1_000_000_000.0
"""The first moment of the virtual clock, in UTC seconds."""
LEASE = 30.0
"""Seconds: the default lease of a queue."""
PATIENCE = 30.0
"""Seconds that a test waits for an event before it fails, on a busy machine too."""
SOON = 0.02
"""Seconds that a reader waits for a result that does not come."""


# Tests start many processes: none need compile what another one has compiled.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

for _number in signal.SIGHUP, signal.SIGINT, signal.SIGQUIT:
    # Under nohup, or in the background of a script, these are ignored. Processes that tests start would inherit that.
    # A handler is not inherited.
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)


class Killed(BaseException):
    """Raised in a worker to stop it in the middle of anything."""


class Heard(SignalLog):
    """A queue's signals, with the state that each task had in the handler."""

    def __init__(self, queue):
        self.states = []
        super().__init__(queue)

    def _note(self, signal, task, exc=None):
        self.states.append((task.id, task.state))
        super()._note(signal, task, exc)

    def story(self, task):
        """Return the signals of a task as a text, after a comparison with its history."""
        history = [record.state for record in task.history()]
        assert [state for task_id, state in self.states if task_id == task.id] == history
        assert self.of(task) == [LIFECYCLE.state(state).signal for state in history]
        return " ".join(self.of(task))


class Readers:
    """Counts the readers that begin to wait for an outcome."""

    def __init__(self, queue, monkeypatch):
        self.waiting = threading.Semaphore(0)
        wait = queue.storage.wait

        def noted(channel, generation, timeout):
            if channel is Channel.OUTCOME:
                self.waiting.release()
            return wait(channel, generation, timeout)

        monkeypatch.setattr(queue.storage, "wait", noted)

    def expect(self):
        assert self.waiting.acquire(timeout=PATIENCE), "nobody waits"


def states(result):
    """Return the states that a task entered, as a text."""
    return " ".join(record.state for record in result.history())


def failure(result, **options):
    """Return the metadata of the exception that reading a result raises."""
    with pytest.raises(TaskException) as caught:
        result.get(**options)
    return caught.value.metadata


def spin(seen, patience=PATIENCE):
    """Stay in Python code, where a thread can be interrupted, until `seen` is set; fail if it is never set."""
    for _ in range(int(patience / 0.005)):
        if seen.wait(0.005):
            return
    raise AssertionError("nobody came")


@contextmanager
def another_thread(work, patience=PATIENCE):
    """Call `work()` in another thread meanwhile; raise its exception at the end."""
    raised = []

    def run():
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield thread
    thread.join(patience)
    assert not thread.is_alive(), "the other thread hangs"
    if raised:
        raise raised[0]


def pytest_configure():
    profiles.load()


def pytest_xdist_auto_num_workers():
    """Return how many processes `-n auto` starts: tests wait much, for processes, timers and stores."""
    return (os.cpu_count() or 1) + 2


def pytest_collection_modifyitems(config, items):
    """Leave out of the default profile what only the thorough one runs."""
    if profiles.IS_THOROUGH:
        return
    left_out = [item for item in items if item.get_closest_marker("thorough")]
    items[:] = [item for item in items if not item.get_closest_marker("thorough")]
    config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Remove the tracer of branches around a test marked `untraced`, which CPython 3.11 would not survive with it."""
    if item.get_closest_marker("untraced") is None:
        return (yield)
    before = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)
    try:
        return (yield)
    finally:
        threading.settrace(before[1])
        sys.settrace(before[0])


@contextmanager
def at_work(worker, runs):
    """Let a worker run the next task meanwhile; enter when the task's function has begun."""
    with another_thread(worker.run_next):
        assert runs.wait(PATIENCE)
        yield


@pytest.fixture(scope="session")
def new(tmp_path_factory, request):
    """Open a queue on a virtual clock: ``with new(kind, …) as queue``. Queues on one kind of store share the store."""
    file = tmp_path_factory.mktemp("queues") / "queues.db"
    urls = {"memory": "memory://", "sqlite": f"sqlite:///{file}?synchronous=off"}
    numbers = itertools.count()

    @contextmanager
    def opened(kind, **options):
        if kind == "postgres":
            urls[kind] = postgres_store_url(request.getfixturevalue("postgres"))
        url = urls[kind] if kind in urls else on_server(kind, request)
        queue = TaskQueue(url, **({"clock": VirtualClock(), "name": f"q{next(numbers)}"} | options))
        try:
            yield queue
        finally:
            queue.close()

    return opened


@pytest.fixture(scope="session")
def postgres():
    """URL of a PostgreSQL database that the tests share; each test has a queue name or a schema of its own."""
    with temporary_database() as url:
        yield url


SERVERS = ("postgres", "redis")


def on_server(kind, request):
    """Return the URL of an empty store on one of the servers."""
    if kind == "redis":
        request.getfixturevalue("redis_url")
        return redis_store_url()
    return postgres_store_url(request.getfixturevalue("postgres"), schema=unused_name())


@pytest.fixture(scope="session")
def redis_url():
    """URL of a Redis server that the tests share; each test has a queue name of its own."""
    require_server()
    yield SERVER
    delete_test_keys()


@pytest.fixture(params=KINDS)
def kind(request):
    """Kind of store: the test runs once on each."""
    return request.param


@pytest.fixture
def clock():
    """Virtual clock: stands still until the test moves it."""
    return VirtualClock()


@pytest.fixture
def url(kind, tmp_path, request):
    """URL of a store that no other test uses."""
    if kind in SERVERS:
        return on_server(kind, request)
    return {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/app.db?synchronous=off"}[kind]


@pytest.fixture
def make(url, clock):
    """Make queues on the store at `url`, with the virtual clock; close them in the end."""
    queues = []

    def made(**options):
        queues.append(TaskQueue(url, **({"clock": clock} | options)))
        return queues[-1]

    yield made
    for queue in queues:
        queue.close()


@pytest.fixture(params=KINDS)
def live(request, tmp_path):
    """Make queues on the real clock, each on a store of its own, with leases longer than a test; close them in the end."""
    queues = []

    def made(**options):
        url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/{len(queues)}.db"
        if request.param in SERVERS:
            url = on_server(request.param, request)
        queues.append(TaskQueue(url, **({"lease": LONG} | options)))
        return queues[-1]

    yield made
    for queue in queues:
        queue.close()


@pytest.fixture
def queue(make):
    """Empty queue on a virtual clock, unless the test file defines `make` in another way."""
    return make()


@pytest.fixture
def heard(queue):
    """Signals of the queue, as they are sent."""
    return Heard(queue)


@pytest.fixture
def readers(queue, monkeypatch):
    """Counter of the readers that wait for outcomes of the queue's tasks."""
    return Readers(queue, monkeypatch)


@pytest.fixture
def add(queue):
    """Task function of the queue that adds two numbers."""

    @queue.task()
    def add(a, b=0):
        return a + b

    return add


@pytest.fixture
def ran():
    """List in which task functions note that they run."""
    return []


@pytest.fixture
def worker(queue):
    """Worker of the queue; the test calls it, in a thread of the test."""
    worker = Worker(queue.engine, "w")
    yield worker
    worker.runner.close()


@pytest.fixture
def runs():
    """Event that a task function sets when it begins."""
    return threading.Event()


@pytest.fixture
def still_works(request):
    """Check after a test of bad input that the queue still runs tasks, those enqueued before the bad input too."""
    if "queue" not in request.fixturenames:
        yield
        return
    queue = request.getfixturevalue("queue")
    before = queue.task(name="before")(lambda: "before")()
    yield
    assert before.state in ("queued", "complete")
    after = queue.task(name="after")(lambda: "after")()
    queue.engine.clock.advance(10**6)
    drain(queue)
    assert (before.get(), after.get()) == ("before", "after")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Current folder of commands, with a `tasks.py` whose queue is in a file there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIFECYCLE_URL", raising=False)
    (tmp_path / "tasks.py").write_text(TASKS.format(url=f"sqlite:///{tmp_path}/tasks.db"))
    return tmp_path


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys):
    """Run a command line in this process; return its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "faulty.py").write_text(FAULTY)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["lifecycle", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, *capsys.readouterr()

    yield run
    for name, module in list(sys.modules.items()):  # a later test may have another `tasks.py`
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
