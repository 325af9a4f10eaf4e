"""The look at new code before a restart: a process of its own imports the code, while the consumer goes on."""

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Final

from lifecycle.clock import monotonic
from lifecycle.consumer.workers.process_main import MAIN_MODULES, find_queue
from lifecycle.errors import ConfigurationError
from lifecycle.escaping import printable_lines
from lifecycle.queue import TaskQueue

__all__ = ["IMPORT_TIMEOUT_SECONDS", "NewCode", "failure_of_import"]

log = logging.getLogger("lifecycle.consumer")

IMPORT_TIMEOUT_SECONDS: Final = 60.0
"""How long the import may take."""
PAUSE_SECONDS: Final = 30.0
"""After a failed import, a restart that nobody has asked for is tried again after so long."""
_PROGRAM: Final = """
import json, os, signal, sys, traceback
target, sys.path[:] = sys.argv[1], json.loads(sys.argv[2])
signal.setitimer(signal.ITIMER_REAL, float(sys.argv[3]))  # ends this process, also if its consumer has gone
sys.argv[1:] = []
code = 1
try:
    from lifecycle.consumer.loading import load_queue
    load_queue(target)
    code = 0
except BaseException:
    traceback.print_exc()
sys.stderr.flush()
os._exit(code)  # whatever the module has started
"""


def failure_of_import(target: str) -> str | None:
    """Import the queue ``MODULE:QUEUE`` in another process, as it is on the disk now.

    Returns ``None``, or the reason for which a consumer could not start with it: a traceback, or one line.
    """
    program = [sys.executable, "-P", "-c", _PROGRAM, target, json.dumps(sys.path), f"{2 * IMPORT_TIMEOUT_SECONDS}"]
    try:
        done = subprocess.run(  # noqa: S603 -- the interpreter that runs already
            program, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False,
            timeout=IMPORT_TIMEOUT_SECONDS, text=True, errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"the import of {target} takes longer than {IMPORT_TIMEOUT_SECONDS:g} s"
    except OSError as error:
        return f"no process can be started: {error}"
    if done.returncode == 0:
        return None
    return done.stderr.strip() or f"the import of {target} ends its process: exit code {done.returncode}"


class NewCode:
    """The code of a consumer's next start; each check of it takes place in a thread of its own."""

    def __init__(self, target: str | None, queue: TaskQueue, on_success: Callable[[], object]) -> None:
        """`target`: ``MODULE:QUEUE``; ``None``: look for the queue. `on_success`: called when a start would succeed."""
        self._target, self._on_success = target or _find(queue), on_success
        self._thread: threading.Thread | None = None
        self._requests = 0
        self._failed_at: float | None = None

    def check(self, *, requested: bool) -> None:
        """Import the code, in the background; `requested`: by a person, who is not made to wait after a failure."""
        failed_at = self._failed_at
        if not requested and failed_at is not None and monotonic() - failed_at < PAUSE_SECONDS:
            return
        self._requests += requested
        if self._target is None:  # only the program itself knows its code
            self._on_success()
        elif self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, args=(self._target,), name="lifecycle-new-code")
            self._thread.daemon = True
            self._thread.start()

    def _run(self, target: str) -> None:
        answered = -1
        while answered != self._requests:  # again, if the code has been mended meanwhile
            answered = self._requests
            failure = failure_of_import(target)
            if failure is None:
                self._on_success()
                return
            self._failed_at = monotonic()
            log.error("no restart, the new code cannot be imported; the old code goes on: %s", printable_lines(failure))


def _find(queue: TaskQueue) -> str | None:
    """Return the target of a queue; ``None`` if it is in the main module, whose import may start a consumer."""
    try:
        source = find_queue(queue)
    except ConfigurationError:
        return None
    return None if source.module.rpartition(".")[2] in MAIN_MODULES else f"{source.module}:{source.name}"
