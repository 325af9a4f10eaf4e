"""Names of processes and workers in leases and histories, and whether the process of such a name has ended.

A name is ``host:pid:token``; a worker adds ``/number``, and a worker with a process of its own ``@pid.start``. The
token has the host's present boot and namespaces, the start time of the process, and random digits. So another process
on the same host can see that a process has ended, and does not wait for its lease. Whatever is in doubt counts as
alive: another host or container, a system without ``/proc``, a name of another form.
"""

import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Final
from zlib import crc32

from lifecycle.execution.forks import this_process

__all__ = ["ProcessName", "has_ended", "name_with_process"]

_PLACE_DIGITS: Final = 8
_START_DIGITS: Final = 4
_RANDOM_DIGITS: Final = 6
_PROC: Final = Path("/proc")


class ProcessName:
    """The name of this process in histories and leases."""

    def __init__(self) -> None:
        self._name, self._pid = "", 0

    def __call__(self) -> str:
        """Return the name; after a fork, the child has another one."""
        if self._pid != this_process.pid:
            self._pid = this_process.pid
            place, start = _place(self._pid), _start(self._pid)
            known = f"{place}{start}" if place and start else ""
            self._name = f"{_host()}:{self._pid}:{known}{os.urandom(_RANDOM_DIGITS // 2).hex()}"
        return self._name


def name_with_process(worker: str, pid: int) -> str:
    """Return the name of a worker that has a process of its own: the same in that process and in its consumer's."""
    return f"{worker}@{pid}.{_start(pid) or '?'}"


def has_ended(worker: str) -> bool:
    """Return whether the process of a worker has certainly ended, and the process of its consumer, too."""
    process, _, number = worker.partition("/")
    _, pid, token = (":" * 2 + process).rsplit(":", 2)
    place, start = token[:_PLACE_DIGITS], token[_PLACE_DIGITS:-_RANDOM_DIGITS]
    if len(start) != _START_DIGITS or place != _place(os.getpid()) or not _is_gone(pid, start):
        return False
    _, at, child = number.partition("@")
    return not at or _is_gone(*child.partition(".")[::2])


def _is_gone(pid: str, start: str) -> bool:
    """Return whether there is certainly no process with this number and start time."""
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError, ValueError):  # no permission: it is there; the others: no number of a process
        pass
    now = _start(int(pid)) if pid.isdecimal() else None
    return now is not None and now != start and len(start) == _START_DIGITS


@lru_cache(maxsize=1)
def _place(pid: int) -> str | None:
    """Return digits for the boot of this host and this process's namespaces; ``None``: unknown. `pid`: this process."""
    with suppress(OSError):
        if str((_PROC / "self").readlink()) == str(pid):  # else that folder shows another namespace's processes
            boot = (_PROC / "sys/kernel/random/boot_id").read_text()
            links = [_PROC / "self/ns/pid", _PROC / "self/ns/time"]  # the latter since Linux 5.6
            namespaces = [str(link.readlink()) for link in links if link.is_symlink()]
            return f"{crc32(' '.join((_host(), boot, *namespaces)).encode()):0{_PLACE_DIGITS}x}"
    return None


def _start(pid: int) -> str | None:
    """Return digits for the start time of a process; ``None`` if it cannot be read, empty if the process has ended."""
    with suppress(OSError, ValueError, IndexError):
        fields = (_PROC / f"{pid}/stat").read_text().rpartition(")")[2].split()
        if fields[0] in "ZX" and len([*(_PROC / f"{pid}/task").iterdir()]) == 1:  # killed, but not waited for
            return ""
        return f"{int(fields[19]) % 16**_START_DIGITS:0{_START_DIGITS}x}"
    return None


def _host() -> str:
    import socket

    return socket.gethostname()
