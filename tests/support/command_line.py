"""The command line in a process of its own, and a module with a queue for it."""

import subprocess
import sys

from support.processes import PATIENCE, environment

TASKS = """
from lifecycle import TaskQueue
queue = TaskQueue({url!r})
@queue.task()
def add(a, b):
    return a + b
@queue.task()
def always_fails():
    raise ValueError("never")
"""


def process(*arguments, **options):
    """Run a command in a process of its own; return exit code, stdout and stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "lifecycle", *map(str, arguments)],
        **{"env": environment()} | options,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def is_one_line(text, *parts):
    """Return whether the text is one line that begins with ``error:`` and contains all these parts."""
    return text.startswith("error: ") and text.count("\n") == 1 and all(part in text for part in parts)
