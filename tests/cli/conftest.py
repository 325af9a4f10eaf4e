"""Fixtures of the tests of the command line: a command in this process, and a queue with tasks."""

import sys

import pytest

from lifecycle import TaskQueue
from lifecycle.consumer.cli.main import main


@pytest.fixture
def command_line(folder, monkeypatch, capsys):
    """Run a command in this process; return exit code, stdout and stderr. The user's modules are imported anew each time."""
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["lifecycle", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None)).startswith(str(folder)):
                del sys.modules[name]
        return ended.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture
def queue(folder):
    """The queue of `tasks.py`, with a task in each of five states; they are in `queue.in_state`."""
    queue = TaskQueue(f"sqlite:///{folder}/tasks.db")
    add = queue.task(name="tasks.add")(lambda a, b: a + b)
    always_fails = queue.task(name="tasks.always_fails")(lambda: 1 / 0)
    queue.in_state = {"complete": add(1, 2), "error": always_fails(), "scheduled": add.schedule((1, 2), delay=3600)}
    while queue.run_next():
        pass
    to_be_revoked = add(3, 4)
    to_be_revoked.revoke()
    queue.run_next()
    queue.in_state |= {"revoked": to_be_revoked, "queued": add(5, 6)}
    assert all(result.state == state for state, result in queue.in_state.items())
    yield queue
    queue.close()


@pytest.fixture
def terminal(monkeypatch):
    """Let the output of `command_line` go to a terminal of so many columns."""

    def of(columns):
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TERM", "xterm-256color")

    return of
