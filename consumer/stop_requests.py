"""How one asks a consumer to stop: from any thread, from a signal handler, and without a lock."""

import logging
import select
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

from lifecycle.consumer.os_signals import give_back, take

__all__ = ["StopRequests"]

log = logging.getLogger("lifecycle.consumer")

FIRST = 128
"""Requests are bytes from here on, which are no numbers of signals."""


class StopRequests:
    """A socket, since a signal handler may not touch a lock that its own thread may hold."""

    def __init__(self) -> None:
        self._inside, self._outside = socket.socketpair()
        self._inside.setblocking(False)
        self._outside.setblocking(False)

    def ring(self, request: int) -> None:
        """Make a request, a number of one's own choice from 0 to 127."""
        try:
            self._outside.send(bytes([FIRST + request]))
        except OSError:  # stopped already, or so many requests that one more says nothing new
            log.debug("a request to stop was not needed any more")

    def heard(self, timeout: float) -> list[int]:
        """The requests since the last call; waits for one up to `timeout` seconds."""
        ready, _, _ = select.select([self._inside], [], [], timeout)
        asked = self._inside.recv(4096) if ready else b""
        # The interpreter writes the signal's own number there, too, to end the wait; what it means came separately.
        return [number - FIRST for number in asked if number >= FIRST]

    @contextmanager
    def signals(self, asked: Mapping[signal.Signals, int]) -> Iterator[None]:
        """Within, the process's signals make requests; in another thread than the main one, they do not."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, frame: FrameType | None) -> None:
            del frame
            self.ring(asked[signal.Signals(number)])

        take(asked, ask, {number: signal.getsignal(number) for number in asked})
        # Without it a signal would be noticed only when select() returns by itself.
        descriptor = signal.set_wakeup_fd(self._outside.fileno(), warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, asked)  # blocked by the one who made room for this process
        try:
            yield
        finally:
            signal.set_wakeup_fd(descriptor)
            give_back(asked)

    def close(self) -> None:
        """Nobody listens any more; a request makes no difference then."""
        self._inside.close()
        self._outside.close()
