"""The HTTP server that answers an orchestrator's questions about a consumer's health.

One thread and few connections, whatever comes: the server must not take descriptors and memory that tasks need, and
must answer while clients keep connections open and send nothing.
"""

import logging
import re
import selectors
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Final

import msgspec

from lifecycle.clock import monotonic, pause
from lifecycle.consumer.health import Health
from lifecycle.consumer.states import STARTING
from lifecycle.errors import ConfigurationError

__all__ = ["HealthServer"]

log = logging.getLogger("lifecycle.consumer")

REPORT_TIMEOUT_SECONDS: Final = 10.0
"""A consumer without a report for so long is not alive any more."""
REQUEST_TIMEOUT_SECONDS: Final = 5.0
"""A connection without a whole request after so long is closed."""
CONNECTION_LIMIT: Final = 16
"""So many connections are open at a time; a further one takes the place of the oldest."""
REQUEST_BYTES_LIMIT: Final = 8192
ACCEPT_PAUSE_SECONDS: Final = 0.1
"""The pause after a connection could not be accepted, as when the process has no descriptor left."""
_REQUEST: Final = re.compile(rb"([A-Z]+) (\S+) HTTP/1\.[01]\r?\n")


class _Connection:
    """A client's connection, and the part of its request that has come."""

    def __init__(self, client: socket.socket) -> None:
        self.client, self.received, self.deadline = client, b"", monotonic() + REQUEST_TIMEOUT_SECONDS


class HealthServer:
    """Answers ``/ready`` and ``/live`` with status 200 or 503, and the last report as JSON.

    `/live` is 200 if the last report is younger than `REPORT_TIMEOUT_SECONDS`. Runs in a thread of its own.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        """Start the server; raise `ConfigurationError` if the address cannot be used."""
        self._health, self._reported_at = Health(STARTING.name, store=False, alive=0), monotonic()
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        try:
            self._listener = socket.create_server(address, family=family, backlog=128)
        except OSError as error:
            raise ConfigurationError(f"the health port {address[0]}:{address[1]} cannot be opened: {error}") from None
        self._listener.setblocking(False)
        self.port: Final[int] = self._listener.getsockname()[1]
        """The port that the server listens at, also if it was started with port 0."""
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake_reader, selectors.EVENT_READ)
        self._connections: dict[socket.socket, _Connection] = {}  # the oldest first
        self._thread = threading.Thread(target=self._run, name="lifecycle-health", daemon=True)
        self._thread.start()

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
        """Close the copies of a forked child: its parent answers there."""
        for one in (self._listener, self._wake_reader, self._wake_writer, *self._connections):
            one.close()

    def close(self) -> None:
        """Stop the server."""
        self._wake_writer.close()
        self._thread.join()

    # In its thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        with self._selector:
            while True:
                first = next(iter(self._connections.values()), None)
                left = None if first is None else max(0.0, first.deadline - monotonic())
                ready = [key.fileobj for key, _ in self._selector.select(left)]
                if self._wake_reader in ready:
                    break
                self._serve(ready)
        for one in (self._listener, self._wake_reader, *self._connections):
            one.close()

    def _serve(self, ready: Sequence[object]) -> None:
        """Read from the clients that have sent something, accept one more, and close those whose time is over."""
        for connection in list(self._connections.values()):
            if connection.client in ready:
                self._read(connection)
        if self._listener in ready:
            self._accept()
        now = monotonic()
        for connection in list(self._connections.values()):
            if connection.deadline <= now:
                self._close(connection)

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError as error:
            log.debug("health request not accepted: error=%s", error)
            if not isinstance(error, BlockingIOError | ConnectionError):
                pause(ACCEPT_PAUSE_SECONDS)
            return
        if len(self._connections) >= CONNECTION_LIMIT:
            self._close(next(iter(self._connections.values())))
        client.setblocking(False)
        self._connections[client] = connection = _Connection(client)
        self._selector.register(client, selectors.EVENT_READ)
        self._read(connection)  # most requests are there already: they need not fear for their place

    def _read(self, connection: _Connection) -> None:
        try:
            received = connection.client.recv(REQUEST_BYTES_LIMIT)
        except BlockingIOError:
            return
        except OSError as error:
            log.debug("health request aborted: error=%s", error)
            received = b""
        connection.received += received
        if b"\n\r\n" in connection.received or b"\n\n" in connection.received:
            with suppress(OSError):  # the client has gone
                connection.client.send(self._response(connection.received))
        elif received and len(connection.received) < REQUEST_BYTES_LIMIT:
            return
        self._close(connection)

    def _response(self, received: bytes) -> bytes:
        request = _REQUEST.match(received)
        if request is None:
            status, body = 400, b""
        elif request[1] not in (b"GET", b"HEAD"):
            status, body = 405, b""
        else:
            status, body = self.answer(request[2].decode("latin-1").partition("?")[0])
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + (b"" if request is not None and request[1] == b"HEAD" else body)

    def _close(self, connection: _Connection) -> None:
        del self._connections[connection.client]
        self._selector.unregister(connection.client)
        connection.client.close()
