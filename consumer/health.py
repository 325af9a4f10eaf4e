"""How a consumer tells whoever watches over it, an orchestrator say, that it is ready, and alive."""

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import attrs

from lifecycle.consumer.states import RUNNING
from lifecycle.errors import ConfigurationError

__all__ = ["Health", "ReadyFile", "address"]

log = logging.getLogger("lifecycle.consumer")

GREATEST: Final = 65535
"""The greatest number of a port."""


@attrs.frozen
class Health:
    """How a consumer is."""

    state: str | None
    """Where it is in its life."""
    store: bool
    """Could the store be used, when it was last tried?"""
    alive: int
    """How many of its workers are at work: threads, processes, or the one loop."""

    @property
    def ready(self) -> bool:
        """Does it run tasks?"""
        return self.state == RUNNING and self.store and self.alive > 0


class ReadyFile:
    """A file that is there while the consumer is ready, and is touched with each report."""

    def __init__(self, path: Path) -> None:
        """Raises `ConfigurationError` if it cannot be there."""
        self._path, self._failed = path, False
        try:
            path.parent.stat()
            path.unlink(missing_ok=True)  # of a consumer that was killed
        except OSError as error:
            raise ConfigurationError(f"the readiness file cannot be made: {error}") from None

    def report(self, health: Health) -> None:
        """Have it there, or not."""
        try:
            if health.ready:
                self._path.write_text(f"{os.getpid()}\n")
            else:
                self._path.unlink(missing_ok=True)
        except OSError as error:
            if not self._failed:
                log.warning("the readiness file cannot be changed: %s", error)
            self._failed = True
        else:
            self._failed = False

    def close(self) -> None:
        """Remove it."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def address(text: str) -> tuple[str, int]:
    """Where ``PORT`` (of this host only) or ``HOST:PORT`` is. Raises `ConfigurationError`."""
    host, _, number = text.rpartition(":")
    if not number.isdecimal() or int(number) > GREATEST:
        raise ConfigurationError(f"health={text!r}: it takes a port, or HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(number)
