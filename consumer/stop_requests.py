"""Requests to stop a consumer: from any thread, from a signal handler, and without a lock (the self-pipe trick)."""

import logging
import operator
import select
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
        self._signals: Mapping[int, int] = {}
        """Signal → request, while signals make requests."""

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
        requests = [n - FIRST_REQUEST if n >= FIRST_REQUEST else self._signals.get(n) for n in received]
        return [request for request in requests if request is not None]

    @contextmanager
    def signals(self, requests: Mapping[signal.Signals, int]) -> Iterator[None]:
        """Let the process's signals make requests, within the block; only in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._signals = {int(number): request for number, request in requests.items()}
        # The interpreter writes the number of each signal into the socket, and that is all there is to do. The handler
        # is a function in C, with two arguments and without effect: signals that come faster than a handler in Python
        # runs would call it within itself, until there is no stack left.
        descriptor = signal.set_wakeup_fd(self._outside.fileno(), warn_on_full_buffer=False)
        set_handler(requests, operator.is_, {number: signal.getsignal(number) for number in requests})
        signal.pthread_sigmask(signal.SIG_UNBLOCK, requests)  # the process that this one replaces has blocked them
        try:
            yield
        finally:
            signal.set_wakeup_fd(descriptor)  # before the socket is closed: the interpreter would complain of it
            restore_handlers(requests)
            self._signals = {}
            self.close()

    def leave_parent(self) -> None:
        """Close the copies of a forked child, whose signals are no requests to its parent."""
        if self._signals:
            signal.set_wakeup_fd(-1)
            self._signals = {}
        self.close()

    def close(self) -> None:
        """Close; a request makes no difference any more. While signals make requests: only once they do not."""
        if not self._signals:
            self._inside.close()
            self._outside.close()
