"""Signals: their names, the registration of handlers, and the delivery. A signal means that a task entered a state."""

import logging
from collections.abc import Callable, Iterable
from typing import Final

from lifecycle.core import table
from lifecycle.core.table import LIFECYCLE
from lifecycle.core.task import Task
from lifecycle.escaping import printable

__all__ = [
    "SIGNALS", "SIGNAL_CANCELED", "SIGNAL_COMPLETE", "SIGNAL_ENQUEUED", "SIGNAL_ERROR", "SIGNAL_EXECUTING",
    "SIGNAL_EXPIRED", "SIGNAL_INTERRUPTED", "SIGNAL_LOCKED", "SIGNAL_RATE_LIMITED", "SIGNAL_RETRYING",
    "SIGNAL_REVOKED", "SIGNAL_SCHEDULED", "SIGNAL_TIMEOUT", "Handler", "Signals", "check_signals",
]  # fmt: skip

SIGNAL_ENQUEUED: Final = table.QUEUED.signal
SIGNAL_SCHEDULED: Final = table.SCHEDULED.signal
SIGNAL_EXECUTING: Final = table.EXECUTING.signal
SIGNAL_COMPLETE: Final = table.COMPLETED.signal
SIGNAL_REVOKED: Final = table.REVOKED.signal
SIGNAL_EXPIRED: Final = table.EXPIRED.signal
SIGNAL_ERROR: Final = table.ERROR.signal
SIGNAL_TIMEOUT: Final = table.TIMEOUT.signal
SIGNAL_LOCKED: Final = table.LOCKED.signal
SIGNAL_RATE_LIMITED: Final = table.RATE_LIMITED.signal
SIGNAL_CANCELED: Final = table.CANCELED.signal
SIGNAL_INTERRUPTED: Final = table.INTERRUPTED.signal
SIGNAL_RETRYING: Final = table.RETRYING.signal

SIGNALS: Final = LIFECYCLE.signals
"""The names of all signals, in the table's order."""

Handler = Callable[..., object]
"""Called as ``handler(signal, task)``, for `SIGNAL_ERROR` as ``handler(signal, task, exc)``. The result is ignored."""

log = logging.getLogger("lifecycle.signals")


class Signals:
    """The signal handlers of one queue. Delivery is fast; registration is slower, and belongs to a program's start."""

    def __init__(self) -> None:
        self._handlers: list[tuple[Handler, set[str]]] = []
        self.connected: dict[str, tuple[Handler, ...]] = {}
        """Signal → its handlers in the order of registration. A signal without a handler is no key."""

    def connect(self, handler: Handler, signals: Iterable[str] = ()) -> None:
        """Connect a handler to these signals, or to all signals if none is named.

        Raises `UnknownSignal`, which lists the known signals; then nothing was connected.
        """
        names = check_signals(signals)
        self._handlers.append((handler, set(names or SIGNALS)))
        self._index()

    def disconnect(self, handler: Handler, signals: Iterable[str] = ()) -> None:
        """Disconnect a handler from these signals, or from all signals if none is named.

        A handler that is not connected is no error. Raises `UnknownSignal`; then nothing was disconnected.
        """
        names = set(check_signals(signals) or SIGNALS)
        for connected, wanted in self._handlers:
            if connected == handler:
                wanted.difference_update(names)
        self._handlers = [(connected, wanted) for connected, wanted in self._handlers if wanted]
        self._index()

    def _index(self) -> None:
        connected = {name: tuple(handler for handler, wanted in self._handlers if name in wanted) for name in SIGNALS}
        # Replaced, never changed: a thread that delivers a signal meanwhile goes on with the old dictionary.
        self.connected = {name: handlers for name, handlers in connected.items() if handlers}

    def send(self, signal: str, task: Task, exc: BaseException | None = None) -> None:
        """Call the handlers of a signal in the order of registration.

        An `Exception` from a handler is logged, and the next handler is called. A `BaseException` that is no
        `Exception` leaves this method: it ends the thread, not only the handler.
        """
        for handler in self.connected.get(signal, ()):
            try:
                if signal == SIGNAL_ERROR:
                    handler(signal, task, exc)
                else:
                    handler(signal, task)
            except Exception:
                log.exception(
                    "signal handler failed: signal=%s task=%s function=%s handler=%r",
                    signal, printable(task.id), printable(task.name), handler,
                )  # fmt: skip


def check_signals(signals: Iterable[str]) -> tuple[str, ...]:
    """Return the signals as a tuple. Raises `UnknownSignal`, which lists the known signals."""
    names = tuple(signals)
    for name in names:
        LIFECYCLE.by_signal(name)
    return names
