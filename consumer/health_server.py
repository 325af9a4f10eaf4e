"""The HTTP server that answers an orchestrator's questions about a consumer's health."""

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

REPORT_TIMEOUT_SECONDS: Final = 10.0
"""A consumer without a report for so long is not alive any more."""


class _Server(ThreadingHTTPServer):
    """Makes no DNS query for its own name, and logs a client's disconnect at level DEBUG only."""

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
            log.debug("health request aborted: client=%s error=%s", client_address, error)
        else:
            log.error("health request failed: client=%s", client_address, exc_info=error)


class HealthServer:
    """Answers ``/ready`` and ``/live`` with status 200 or 503, and the last report as JSON.

    `/live` is 200 if the last report is younger than `REPORT_TIMEOUT_SECONDS`. Runs in a thread of its own.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        """Start the server; raise `ConfigurationError` if the address cannot be used."""
        answer, self._health, self._reported_at = self.answer, Health(STARTING.name, store=False, alive=0), monotonic()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = answer(self.path)
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
    def port(self) -> int:
        """The port that the server listens at, also if it was started with port 0."""
        return self._server.server_port

    def report(self, health: Health) -> None:
        """Replace the last report."""
        self._health, self._reported_at = health, monotonic()

    def answer(self, path: str) -> tuple[int, bytes]:
        """Return status and body for a path."""
        health = self._health
        answers = {"/ready": health.ready, "/live": monotonic() - self._reported_at < REPORT_TIMEOUT_SECONDS}
        if path not in answers:
            return 404, msgspec.json.encode({"paths": list(answers)})
        report = {"state": health.state, "store": health.store, "alive": health.alive}
        return 200 if answers[path] else 503, msgspec.json.encode(report)

    def leave_parent(self) -> None:
        """Close the port in a forked child: its parent answers there."""
        self._server.server_close()

    def close(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._server.server_close()
