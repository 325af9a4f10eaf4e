"""Signals: the entry into a state, told to whoever wants to hear of it. Names, registration, delivery."""

import logging
from collections.abc import Callable, Iterable
from typing import Final

from lifecycle.core import table
from lifecycle.core.table import LIFECYCLE
from lifecycle.core.task import Task

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
"""Every signal there is, in the table's order."""

Handler = Callable[..., object]
"""Called as ``handler(signal, task)``, for `SIGNAL_ERROR` as ``handler(signal, task, exc)``; its result is ignored."""

log = logging.getLogger("lifecycle.signals")


class Signals:
    """Who wants to hear of what. One for each queue. Registration is not meant for the hot path, delivery is."""

    def __init__(self) -> None:
        self._handlers: list[tuple[Handler, set[str]]] = []
        self.connected: dict[str, tuple[Handler, ...]] = {}
        """Signal → its handlers in the order of registration; a signal that nobody listens to is not in it."""

    def connect(self, handler: Handler, signals: Iterable[str] = ()) -> None:
        """Call `handler` for these signals, or for every one if none is named.

        Raises `UnknownSignal`, naming those there are, and registers nothing, if one of them does not exist.
        """
        names = check_signals(signals)
        self._handlers.append((handler, set(names or SIGNALS)))
        self._index()

    def disconnect(self, handler: Handler, signals: Iterable[str] = ()) -> None:
        """Do not call `handler` any more for these signals, or for any if none is named.

        Raises `UnknownSignal` as `connect` does. A handler that is not connected is left so, quietly.
        """
        names = set(check_signals(signals) or SIGNALS)
        for known, wanted in self._handlers:
            if known == handler:
                wanted.difference_update(names)
        self._handlers = [entry for entry in self._handlers if entry[1]]
        self._index()

    def _index(self) -> None:
        connected = {name: tuple(handler for handler, wanted in self._handlers if name in wanted) for name in SIGNALS}
        # Replaced at once, never changed: a worker that is just delivering keeps the old one.
        self.connected = {name: handlers for name, handlers in connected.items() if handlers}

    def send(self, signal: str, task: Task, exc: BaseException | None = None) -> None:
        """Call the handlers of `signal` one after the other. One that raises is logged, and stops nobody.

        Only what is no `Exception` passes through: it is meant for the thread, not for the handler.
        """
        for handler in self.connected.get(signal, ()):
            try:
                if signal == SIGNAL_ERROR:
                    handler(signal, task, exc)
                else:
                    handler(signal, task)
            except Exception:
                log.exception("handler %r raised on %r of %s; the others go on", handler, signal, task)


def check_signals(signals: Iterable[str]) -> tuple[str, ...]:
    """`signals` as a tuple; raises `UnknownSignal`, naming those there are, if one of them does not exist."""
    names = tuple(signals)
    for name in names:
        LIFECYCLE.by_signal(name)
    return names
