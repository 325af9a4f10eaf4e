"""The end of child processes that a user's function forks and does not end itself.

Such a child returns from the function into a copy of the worker. It must not go on as a second worker of that name, and
must not touch the worker's store: `end_forked_child` stands behind each call of a task's function, and `OneProcess`
around each call of a hook and of a signal handler.
"""

import os
import sys
import traceback
from contextlib import suppress
from types import TracebackType

__all__ = ["OneProcess", "end_forked_child", "this_process"]


class _ThisProcess:
    """The number of this process, kept: `os.getpid` would cost each task several calls of the system."""

    def __init__(self) -> None:
        self.read()

    def read(self) -> None:
        """Read the number from the system: at the start, and in each forked child."""
        self.pid = os.getpid()


this_process = _ThisProcess()
os.register_at_fork(after_in_child=this_process.read)


def end_forked_child(pid: int, error: BaseException | None = None) -> None:
    """End this process, unless `pid` is its number; `pid`: the process that has called the function.

    The exit code is that of Python's own end: 0 if the function has returned, that of a `SystemExit`, and 1 for any
    other `error`, whose traceback is printed. Cleanup functions (`atexit`) are not called: they are the parent's.
    """
    if this_process.pid == pid:
        return
    code = 1
    with suppress(BaseException):  # nothing may leave: the caller would go on
        code = _exit_code(error)
        for stream in sys.stdout, sys.stderr:
            stream.flush()
    os._exit(code)


class OneProcess:
    """Context of a call: a child process that is forked within it ends with it, see `end_forked_child`."""

    __slots__ = ("_pid",)

    def __enter__(self) -> None:
        self._pid = this_process.pid

    def __exit__(self, kind: object, error: BaseException | None, frames: TracebackType | None) -> None:
        end_forked_child(self._pid, error)


def _exit_code(error: BaseException | None) -> int:
    match error:
        case None | SystemExit(code=None):
            return 0
        case SystemExit(code=int() as code):
            return code & 0xFF
        case SystemExit(code=reason):
            sys.stderr.write(f"{reason}\n")
        case _:
            traceback.print_exception(error)
    return 1
