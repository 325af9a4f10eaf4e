"""Requests to stop a consumer: from any thread, from a signal handler, and without a lock (the self-pipe trick)."""

import logging
import select
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Final

from lifecycle.consumer.os_signals import restore_handlers, set_handler

__all__ = ["StopRequests"]

log = logging.getLogger("lifecycle.consumer")

FIRST_REQUEST: Final = 128
"""Requests are bytes from here on, which are no numbers of signals."""
READ_BYTES: Final = 4096


class StopRequests:
    """A socket pair, since a signal handler may not touch a lock that its own thread may hold."""

    def __init__(self) -> None:
        self._inside, self._outside = socket.socketpair()
        self._inside.setblocking(False)
        self._outside.setblocking(False)

    def request(self, request: int) -> None:
        """Make a request, a number of the caller's choice from 0 to 127."""
        try:
            self._outside.send(bytes([FIRST_REQUEST + request]))
        except OSError:  # stopped already, or so many requests that one more makes no difference
            log.debug("a request to stop came too late")

    def wait(self, timeout: float) -> list[int]:
        """Return the requests since the last call; wait for one up to `timeout` seconds."""
        ready, _, _ = select.select([self._inside], [], [], timeout)
        received = self._inside.recv(READ_BYTES) if ready else b""
        # The interpreter writes the signal's own number there, too, to end the wait; the request came separately.
        return [number - FIRST_REQUEST for number in received if number >= FIRST_REQUEST]

    @contextmanager
    def signals(self, requests: Mapping[signal.Signals, int]) -> Iterator[None]:
        """Let the process's signals make requests, within the block; only in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def request(number: int, frame: FrameType | None) -> None:
            del frame
            self.request(requests[signal.Signals(number)])

        set_handler(requests, request, {number: signal.getsignal(number) for number in requests})
        # Without it a signal would be noticed only when select() returns by itself.
        descriptor = signal.set_wakeup_fd(self._outside.fileno(), warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, requests)  # the process that this one replaces has blocked them
        try:
            yield
        finally:
            signal.set_wakeup_fd(descriptor)
            restore_handlers(requests)

    def close(self) -> None:
        """Close; a request makes no difference any more."""
        self._inside.close()
        self._outside.close()
