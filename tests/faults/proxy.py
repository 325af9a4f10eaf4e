"""Proxy between clients and a server that can cut a connection between a request and its answer."""

import socket
import threading
from collections import Counter

__all__ = ["MANNERS", "Proxy"]

MANNERS = ("before the request", "after the request", "before the answer")
"""Moments of a cut: the server never gets the request; it gets the request, and cannot answer; its answer is lost."""
COMMITS = (b"commit", b"COMMIT", b"EVALSHA", b"evalsha", b"FCALL", b"fcall", b"EVAL", b"insert_one")
"""Bytes that only requests with changes contain."""
SIZE = 65_536


class Proxy:
    """Listens on a port of its own, with a thread for each direction of each connection."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._mutex = threading.Lock()
        self._cuts: list[tuple[str, bool]] = []
        self.made: Counter[str] = Counter()
        """Counts of cuts, by manner."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def cut_next(self, manner: str, commit: bool) -> None:
        """Cut the connection of the next request; `commit`: of the next request with changes."""
        with self._mutex:
            self._cuts.append((manner, commit))

    def close(self) -> None:
        """Accept no more connections."""
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(self, client, server)
            threading.Thread(target=connection.forward_requests, daemon=True).start()
            threading.Thread(target=connection.forward_answers, daemon=True).start()

    def take_cut(self, request: bytes) -> str | None:
        """Return the manner in which to cut the connection of this request, or None."""
        if not self._cuts:  # spares the lock
            return None
        commits = any(word in request for word in COMMITS)
        with self._mutex:
            for number, (manner, commit) in enumerate(self._cuts):
                if commits or not commit:
                    del self._cuts[number]
                    self.made[f"cut {manner}"] += 1
                    return manner
        return None


class _Connection:
    """One connection of a client, forwarded to the server."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._drops_answers = False

    def forward_requests(self) -> None:
        """Forward requests from the client to the server."""
        try:
            while request := self._client.recv(SIZE):
                manner = self._proxy.take_cut(request)
                if manner == MANNERS[0]:
                    break
                self._drops_answers = manner is not None  # before the request is sent: the answer may come at once
                self._server.sendall(request)
                if manner == MANNERS[1]:
                    break
        except OSError:
            pass
        self._close()

    def forward_answers(self) -> None:
        """Forward answers from the server to the client."""
        try:
            while (answer := self._server.recv(SIZE)) and not self._drops_answers:
                self._client.sendall(answer)
        except OSError:
            pass
        self._close()

    def _close(self) -> None:
        for one in (self._client, self._server):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()
