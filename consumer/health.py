"""A consumer's health for orchestrators: the report, the readiness file, and the address of the health server."""

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import attrs

from lifecycle.consumer.states import RUNNING
from lifecycle.errors import ConfigurationError

__all__ = ["Health", "ReadyFile", "parse_address"]

log = logging.getLogger("lifecycle.consumer")

MAX_PORT: Final = 65535


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
    """A file that exists while the consumer is ready, and is written with each report."""

    def __init__(self, path: Path) -> None:
        """Raise `ConfigurationError` if the file cannot be made."""
        self._path, self._failed = path, False
        try:
            path.parent.stat()
            path.unlink(missing_ok=True)  # left by a consumer that was killed
        except OSError as error:
            raise ConfigurationError(f"ready_file={str(path)!r}: the readiness file cannot be made: {error}") from None

    def report(self, health: Health) -> None:
        """Write or remove the file."""
        try:
            if health.ready:
                self._path.write_text(f"{os.getpid()}\n")
            else:
                self._path.unlink(missing_ok=True)
        except OSError as error:
            if not self._failed:
                log.warning("cannot change the readiness file: error=%s", error)
            self._failed = True
        else:
            self._failed = False

    def leave_parent(self) -> None:
        """Do nothing, in a forked child: the file is the parent's."""

    def close(self) -> None:
        """Remove the file."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of ``PORT`` (on 127.0.0.1) or ``HOST:PORT``. Raises `ConfigurationError`."""
    host, _, number = text.rpartition(":")
    if not number.isdecimal() or int(number) > MAX_PORT:
        raise ConfigurationError(f"health={text!r}: must be a port or HOST:PORT, as in 8080 or 0.0.0.0:8080")
    return host.strip("[]") or "127.0.0.1", int(number)
