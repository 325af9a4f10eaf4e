"""How a consumer tells whoever watches over it, an orchestrator say, that it is ready, and alive."""

import logging
import os
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import attrs
import msgspec

from consumer.life import RUNNING
from lifecycle import ConfigurationError
from lifecycle.clock import monotonic

__all__ = ["Health", "Port", "ReadyFile", "address"]

log = logging.getLogger("lifecycle.consumer")

LIFELESS: Final = 10.0
"""Seconds without a report after which a consumer is not called alive any more."""
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
        self._path = path

    def report(self, health: Health) -> None:
        """Have it there, or not."""
        try:
            if health.ready:
                self._path.write_text(f"{os.getpid()}\n")
            else:
                self._path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("the readiness file cannot be changed: %s", error)

    def close(self) -> None:
        """Remove it."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


class Port:
    """Answers over HTTP: ``/ready`` and ``/live``, with 200 or 503, and what it knows as JSON."""

    def __init__(self, address: tuple[str, int]) -> None:
        """Raises `ConfigurationError` if it cannot listen there."""
        port, self._health, self._at = self, Health(None, store=False, alive=0), monotonic()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = port.answer(self.path)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- its name in the base
                log.debug(format, *args)

        try:
            self._server = ThreadingHTTPServer(address, Handler)
        except OSError as error:
            raise ConfigurationError(f"the health port {address[0]}:{address[1]} cannot be opened: {error}") from None
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="lifecycle-health", daemon=True).start()

    @property
    def number(self) -> int:
        """The port that it listens at: of use if it was asked to listen at any, 0."""
        return self._server.server_port

    def report(self, health: Health) -> None:
        """Take note."""
        self._health, self._at = health, monotonic()

    def answer(self, path: str) -> tuple[int, bytes]:
        """Status and body for a path."""
        health = self._health
        answers = {"/ready": health.ready, "/live": monotonic() - self._at < LIFELESS}
        if path not in answers:
            return 404, msgspec.json.encode({"paths": list(answers)})
        told = {"state": health.state, "store": health.store, "alive": health.alive}
        return 200 if answers[path] else 503, msgspec.json.encode(told)

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()


def address(text: str) -> tuple[str, int]:
    """Where ``PORT`` (of this host only) or ``HOST:PORT`` is. Raises `ConfigurationError`."""
    host, _, number = text.rpartition(":")
    if not number.isdecimal() or int(number) > GREATEST:
        raise ConfigurationError(f"health={text!r}: it takes a port, or HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(number)
