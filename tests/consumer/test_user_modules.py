"""Modules of a user with names of the library or of Python beside `tasks.py`: the library never imports them."""

import signal
import subprocess
import sys
import sysconfig
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.processes import PATIENCE, environment, settled, stop_process, until

from lifecycle import TaskQueue
from lifecycle.consumer.loading import load_queue

CONSOLE_SCRIPT = [str(Path(sysconfig.get_path("scripts"), "lifecycle"))]
MODULE = [sys.executable, "-m", "lifecycle"]
COMMANDS = pytest.mark.parametrize("command", [CONSOLE_SCRIPT, MODULE], ids=["console-script", "python-m"])
WORKERS = {
    "thread": ["-k", "thread"],
    "process-spawn": ["-k", "process", "--start", "spawn"],
    "process-fork": ["-k", "process", "--start", "fork"],
    "greenlet": ["-k", "greenlet"],
    "asyncio": ["-k", "asyncio"],
}

OWN = ["consumer", "queue", "tests", "types_", "core", "storage", "cli", "demo", "workers", "signals"]
"""Modules beside `tasks.py`. Only `queue` is also the name of a module in the standard library."""
STANDARD = [name for name in sys.stdlib_module_names if find_spec(name)]
"""Modules of the standard library on this system."""
NOT_IMPORTABLE = """
open(__file__ + ".imported", "w").close()
raise RuntimeError("the user's file was imported")
"""
TASKS = """
import helpers
from lifecycle import TaskQueue
queue = TaskQueue("sqlite:///{folder}/tasks.db")
@queue.task(name="add")
def add(a, b):
    return helpers.add(a, b)
@queue.task(name="add_async")
async def add_async(a, b):
    return helpers.add(a, b)
"""
HELPERS = "def add(a, b):\n    return a + b\n"
PROGRAM = """
import sys
from lifecycle import Consumer
from tasks import add, add_async, queue
if __name__ == "__main__":
    consumer = Consumer(queue, 1, sys.argv[1], start_method=sys.argv[2])
    consumer.start()
    print([task(1, 2).get(blocking=True, timeout=30) for task in (add, add_async)])
    consumer.stop()
"""


def write(folder, **modules):
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)


def imported(folder):
    """Return the user's files that were imported although nothing of the user's imports them."""
    return sorted(path.name for path in folder.glob("*.imported"))


@pytest.fixture
def folder(tmp_path):
    """Folder of a user: `tasks.py`, a module that it imports, and modules that must not be imported."""
    write(tmp_path, tasks=TASKS.format(folder=tmp_path), helpers=HELPERS, **dict.fromkeys(OWN, NOT_IMPORTABLE))
    return tmp_path


@contextmanager
def started(folder, *command):
    """Run a command in the folder as a process; fail if it logs a traceback or imports the user's files."""
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment(), stdout=output, stderr=output)
    process.log = log
    try:
        yield process
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in log.read_text()
    assert imported(folder) == []


def outcomes(folder, functions=("add", "add_async")):
    """Call the tasks as another program does, wait, and return their results."""
    queue = TaskQueue(f"sqlite:///{folder}/tasks.db")
    try:
        results = [queue.task(name=name)(lambda a, b: None)(1, 2) for name in functions]
        settled(queue, *results)
        return [result.get() for result in results]
    finally:
        queue.close()


def output(folder, *command):
    """Return the output of a command; fail if the command fails or imports the user's files."""
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert imported(folder) == []
    return done.stdout


# The command line ----------------------------------------------------------------------------------------------------


@COMMANDS
@pytest.mark.parametrize("workers", WORKERS)
def test_run_with_each_worker_type_imports_no_user_module(folder, command, workers):
    """`lifecycle run` executes tasks, async ones too, in each type of worker; `tasks.py` finds its own helpers."""
    with started(folder, *command, "run", "tasks", *WORKERS[workers]) as consumer:
        assert outcomes(folder) == [3, 3]
        assert stop_process(consumer) == 0


@COMMANDS
@pytest.mark.parametrize("workers", WORKERS)
def test_user_module_that_tasks_import_is_the_users(folder, command, workers):
    """If `tasks.py` imports `consumer`, `tests` and `signals`, these are the files beside it."""
    own = {name: f"NAME = {name!r}\n" for name in ("consumer", "tests", "signals")}
    imports = f"import {', '.join(own)}\n"
    called = '@queue.task(name="names")\ndef names(a, b):\n    return [consumer.NAME, tests.NAME, signals.NAME]\n'
    write(folder, tasks=imports + TASKS.format(folder=folder) + called, **own)
    with started(folder, *command, "run", "tasks", *WORKERS[workers]) as consumer:
        assert outcomes(folder, ["names"]) == [[*own]]
        assert stop_process(consumer) == 0


@COMMANDS
def test_list_and_show_import_no_user_module(folder, command):
    """`lifecycle list`, `show`, `stats` look into the queue of `tasks.py`."""
    queue = TaskQueue(f"sqlite:///{folder}/tasks.db")
    result = queue.task(name="add")(lambda a, b: None)(1, 2)
    queue.close()
    assert result.id in output(folder, *command, "list", "tasks")
    assert "queued" in output(folder, *command, "show", result.id, "tasks:queue")
    assert "queued" in output(folder, *command, "stats", "--url", f"sqlite:///{folder}/tasks.db")


@COMMANDS
def test_check_and_verify_import_no_user_module(folder, command):
    """`lifecycle check` and `verify` find the user's table, and nothing else of the user's."""
    write(folder, law="from lifecycle import LIFECYCLE as TABLE\n")
    (folder / "trace").write_text('{"id": "7", "signal": "enqueued"}\n')
    output(folder, *command, "check", "trace", "--table", "law")
    output(folder, *command, "verify", "law")


@pytest.mark.parametrize(
    ("command", "names"), [(CONSOLE_SCRIPT, STANDARD), (MODULE, OWN)], ids=["console-script", "python-m"]
)
def test_demo_imports_no_user_module(folder, command, names):
    """`lifecycle demo` begins, its consumer runs the first scenario, and Ctrl-C ends both."""
    write(folder, **dict.fromkeys(names, NOT_IMPORTABLE))
    with started(folder, *command, "demo") as demo:
        until(lambda: "✓" in demo.log.read_text(), "the end of the first scenario")
        assert stop_process(demo) == 130
    assert "✗" not in demo.log.read_text()


@pytest.mark.parametrize("workers", ["thread", "greenlet", "asyncio"])
def test_consumer_that_starts_anew_imports_no_user_module(folder, workers):
    """After SIGHUP the command is executed again, from the same folder, and still imports no file of the user's."""
    with started(folder, *MODULE, "run", "tasks", *WORKERS[workers]) as consumer:
        assert outcomes(folder) == [3, 3]
        consumer.send_signal(signal.SIGHUP)
        until(lambda: consumer.log.read_text().count("workers on queue") == 2, "the new start")
        assert outcomes(folder) == [3, 3]
        assert stop_process(consumer) == 0


# The whole standard library ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "workers"),
    [
        (CONSOLE_SCRIPT, "thread"),
        (CONSOLE_SCRIPT, "process-fork"),
        (CONSOLE_SCRIPT, "greenlet"),
        (CONSOLE_SCRIPT, "asyncio"),
        ([sys.executable, "-P", "-m", "lifecycle"], "process-spawn"),
    ],
    ids=["thread", "process-fork", "greenlet", "asyncio", "process-spawn"],
)
def test_no_module_of_the_standard_library_is_replaced(folder, command, workers):
    """A user's folder may have a file for every module of the standard library: Python's are imported."""
    write(folder, **dict.fromkeys(STANDARD, NOT_IMPORTABLE))
    with started(folder, *command, "run", "tasks", *WORKERS[workers]) as consumer:
        assert outcomes(folder) == [3, 3]
        assert stop_process(consumer) == 0


# Programs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "start"), [("thread", "spawn"), ("process", "spawn"), ("process", "fork"), ("asyncio", "spawn")]
)
def test_consumer_in_a_program_imports_no_user_module(folder, kind, start):
    """`from lifecycle import Consumer` works in a program beside these files.

    But for `queue.py`: Python puts a program's folder before the standard library, and any package would import the file.
    """
    (folder / "queue.py").unlink()
    write(folder, program=PROGRAM)
    assert output(folder, sys.executable, "program.py", kind, start) == "[3, 3]\n"


# The module path -----------------------------------------------------------------------------------------------------


def test_current_folder_comes_after_the_standard_library(folder, monkeypatch):
    """The current folder stands between the standard library and installed packages, once."""
    standard, site = sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")
    path = [standard, f"{standard}/lib-dynload", site]
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", path)
    for name in "tasks", "helpers":
        monkeypatch.delitem(sys.modules, name, raising=False)
    for _ in range(2):
        load_queue("tasks").close()
    assert path == [standard, f"{standard}/lib-dynload", str(folder), site]
    for name in "tasks", "helpers":
        del sys.modules[name]
