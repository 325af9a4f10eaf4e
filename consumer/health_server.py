"""Where an orchestrator asks over HTTP how a consumer is."""

import logging
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Final

import msgspec

from lifecycle.clock import monotonic
from lifecycle.consumer.health import Health
from lifecycle.consumer.states import STARTING
from lifecycle.errors import ConfigurationError

__all__ = ["HealthServer"]

log = logging.getLogger("lifecycle.consumer")

LIFELESS: Final = 10.0
"""Seconds without a report after which a consumer is not called alive any more."""


class _Server(ThreadingHTTPServer):
    """Asks no name service who it is, and does not mind those who hang up."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        del request
        error = sys.exception()
        if isinstance(error, OSError):
            log.debug("%s asked how this consumer is, and did not wait: %s", client_address, error)
        else:
            log.error("%s asked how this consumer is, and gets no answer", client_address, exc_info=error)


class HealthServer:
    """Answers over HTTP: ``/ready`` and ``/live``, with 200 or 503, and what it knows as JSON."""

    def __init__(self, address: tuple[str, int]) -> None:
        """Raises `ConfigurationError` if it cannot listen there."""
        port, self._health, self._at = self, Health(STARTING.name, store=False, alive=0), monotonic()

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
            self._server = _Server(address, Handler)
        except OSError as error:
            raise ConfigurationError(f"the health port {address[0]}:{address[1]} cannot be opened: {error}") from None
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
