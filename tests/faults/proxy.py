"""A wire between clients and a server that can be cut between a request and its answer."""

import socket
import threading
from collections import Counter

__all__ = ["MANNERS", "Proxy"]

MANNERS = ("before the request", "behind the request", "before the answer")
"""Where the wire is cut: the server never gets the request; it gets it, and its client is gone; it has answered, and
nobody hears it."""
COMMITS = (b"commit", b"COMMIT", b"EVALSHA", b"evalsha", b"FCALL", b"fcall", b"EVAL", b"insert_one")
"""What is in a request that changes something."""
SIZE = 65_536


class Proxy:
    """Listens on a port of its own; a thread for each direction of each connection."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._mutex = threading.Lock()
        self._orders: list[tuple[str, bool]] = []
        self.made: Counter[str] = Counter()
        """How often the wire was cut, by manner."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def cut_next(self, manner: str, commit: bool) -> None:
        """Cut the wire of whoever makes the next request; `commit`: the next that changes something."""
        with self._mutex:
            self._orders.append((manner, commit))

    def close(self) -> None:
        """Take no more calls."""
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
            wire = _Wire(self, client, server)
            threading.Thread(target=wire.ask, daemon=True).start()
            threading.Thread(target=wire.answer, daemon=True).start()

    def order(self, request: bytes) -> str | None:
        """In which manner the wire of this request is to be cut, if it is."""
        if not self._orders:  # spares the lock
            return None
        commits = any(word in request for word in COMMITS)
        with self._mutex:
            for number, (manner, commit) in enumerate(self._orders):
                if commits or not commit:
                    del self._orders[number]
                    self.made[f"cut {manner}"] += 1
                    return manner
        return None


class _Wire:
    """One connection."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._deaf = False

    def ask(self) -> None:
        """Requests, from the client to the server."""
        try:
            while request := self._client.recv(SIZE):
                manner = self._proxy.order(request)
                if manner == MANNERS[0]:
                    break
                self._deaf = manner is not None  # the answer may be quicker than what follows here
                self._server.sendall(request)
                if manner == MANNERS[1]:
                    break
        except OSError:
            pass
        self._hang_up()

    def answer(self) -> None:
        """Answers, from the server to the client."""
        try:
            while (answer := self._server.recv(SIZE)) and not self._deaf:
                self._client.sendall(answer)
        except OSError:
            pass
        self._hang_up()

    def _hang_up(self) -> None:
        for one in (self._client, self._server):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()
