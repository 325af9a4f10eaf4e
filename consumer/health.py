"""A consumer's health for orchestrators: the report, the readiness file, and the address of the health server."""

import logging
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

import attrs

from lifecycle.consumer.states import RUNNING
from lifecycle.errors import ConfigurationError

__all__ = ["Health", "ReadyFile", "parse_address"]

log = logging.getLogger("lifecycle.consumer")

MAX_PORT: Final = 65535
MAX_CONTENT_BYTES: Final = 32
"""More than the number of any process has."""


@attrs.frozen
class Health:
    """A report on a consumer."""

    state: str | None
    """The name of its state in `CONSUMER_LIFECYCLE`; ``None`` before its first run."""
    store: bool
    """True if the last call of the store succeeded."""
    alive: int
    """The number of its workers that are alive: threads, processes, or the one event loop."""

    @property
    def ready(self) -> bool:
        """True if the consumer runs tasks."""
        return self.state == RUNNING and self.store and self.alive > 0


class ReadyFile:
    """A file that exists while the consumer is ready, and is written anew with each report.

    A new file takes the place of the old one in one step: whatever stands at the path, a link that another user has put
    there included, is never written through.
    """

    def __init__(self, path: Path) -> None:
        """Remove the file of a consumer that was killed.

        Raises `ConfigurationError` if there is no such folder, or if the path is a link, or a file without a number.
        """
        self._path, self._failed = path, False
        self._new = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.stat()
            if os.path.lexists(path):
                _check_old(path)
                path.unlink()
        except OSError as error:
            raise ConfigurationError(f"ready_file={str(path)!r}: the readiness file cannot be made: {error}") from None

    def report(self, health: Health) -> None:
        """Write or remove the file."""
        try:
            if health.ready:
                self._write()
            else:
                self._path.unlink(missing_ok=True)
        except OSError as error:
            if not self._failed:
                log.warning("cannot change the readiness file: error=%s", error)
            self._failed = True
        else:
            self._failed = False

    def _write(self) -> None:
        self._new.unlink(missing_ok=True)  # of a process with this number, which was killed
        descriptor = os.open(self._new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{os.getpid()}\n")
        self._new.replace(self._path)

    def leave_parent(self) -> None:
        """Do nothing, in a forked child: the file is the parent's."""

    def close(self) -> None:
        """Remove the file."""
        for path in self._path, self._new:
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _check_old(path: Path) -> None:
    """Raise `OSError` unless the file at a path is a readiness file: empty, or with the number of a process."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        content = os.read(descriptor, MAX_CONTENT_BYTES)
    finally:
        os.close(descriptor)
    if not re.fullmatch(rb"(\d+\n)?", content):
        raise OSError("there is another file of this name, which is left alone")


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of ``PORT`` (on 127.0.0.1) or ``HOST:PORT``. Raises `ConfigurationError`."""
    host, _, number = text.rpartition(":")
    if not number.isdecimal() or int(number) > MAX_PORT:
        raise ConfigurationError(f"health={text!r}: must be a port or HOST:PORT, as in 8080 or 0.0.0.0:8080")
    return host.strip("[]") or "127.0.0.1", int(number)
