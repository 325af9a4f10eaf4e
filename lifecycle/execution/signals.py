"""Signals: their names, the registration of handlers, and the delivery. A signal means that a task entered a state."""

import logging
from collections.abc import Callable, Iterable
from contextvars import copy_context
from typing import Final

import attrs

from lifecycle.clock import monotonic
from lifecycle.core import table
from lifecycle.core.table import LIFECYCLE
from lifecycle.core.task import Task
from lifecycle.errors import ConfigurationError
from lifecycle.escaping import printable
from lifecycle.execution.callables import (
    Origin,
    check_call,
    check_callable,
    note_task_attribute,
    origin_of,
    refuse_unrun,
)
from lifecycle.execution.forks import OneProcess

__all__ = [
    "SIGNALS", "SIGNAL_CANCELED", "SIGNAL_COMPLETE", "SIGNAL_ENQUEUED", "SIGNAL_ERROR", "SIGNAL_EXECUTING",
    "SIGNAL_EXPIRED", "SIGNAL_INTERRUPTED", "SIGNAL_LOCKED", "SIGNAL_PENDING", "SIGNAL_RATE_LIMITED",
    "SIGNAL_RETRYING", "SIGNAL_REVOKED", "SIGNAL_SCHEDULED", "SIGNAL_SKIPPED", "SIGNAL_TIMEOUT", "Handler",
    "Signals", "check_signals",
]  # fmt: skip

SIGNAL_ENQUEUED: Final = table.QUEUED.signal
SIGNAL_SCHEDULED: Final = table.SCHEDULED.signal
SIGNAL_PENDING: Final = table.PENDING.signal
SIGNAL_EXECUTING: Final = table.EXECUTING.signal
SIGNAL_COMPLETE: Final = table.COMPLETED.signal
SIGNAL_REVOKED: Final = table.REVOKED.signal
SIGNAL_EXPIRED: Final = table.EXPIRED.signal
SIGNAL_SKIPPED: Final = table.SKIPPED.signal
SIGNAL_ERROR: Final = table.ERROR.signal
SIGNAL_TIMEOUT: Final = table.TIMEOUT.signal
SIGNAL_LOCKED: Final = table.LOCKED.signal
SIGNAL_RATE_LIMITED: Final = table.RATE_LIMITED.signal
SIGNAL_CANCELED: Final = table.CANCELED.signal
SIGNAL_INTERRUPTED: Final = table.INTERRUPTED.signal
SIGNAL_RETRYING: Final = table.RETRYING.signal

SIGNALS: Final = LIFECYCLE.signals
"""The names of all signals, in the table's order."""

_OF_BIRTHS: Final = frozenset(state.signal for state in LIFECYCLE.targets(None))

Handler = Callable[..., object]
"""Called as ``handler(signal, task)``, for `SIGNAL_ERROR` as ``handler(signal, task, exc)``. The result is ignored."""

SLOW_SECONDS: Final = 1.0
"""A handler that takes longer is logged, once."""

log = logging.getLogger("lifecycle.signals")


@attrs.define
class _Connected:
    """A connected handler, and its signals."""

    call: Handler
    signals: set[str]
    origin: Origin


class Signals:
    """The signal handlers of one queue. Delivery is fast; registration is slower, and belongs to a program's start."""

    def __init__(self) -> None:
        self._handlers: list[_Connected] = []
        self._slow: list[Handler] = []
        """The handlers whose slowness was logged."""
        self.connected: dict[str, tuple[Handler, ...]] = {}
        """Signal → its handlers in the order of registration. A signal without a handler is no key."""
        self.announces_births = False
        """True if a signal has a handler that new tasks send."""

    def connect(self, handler: Handler, signals: Iterable[str] = ()) -> None:
        """Connect a handler to these signals, or to all signals if none is named.

        A handler that is connected already keeps its place, and is called once for each signal of both. The same
        handler after a reload of its module takes the place of the earlier one.

        Raises `UnknownSignal`, which lists the known signals, and `ConfigurationError` for a handler that could not be
        called; then nothing was connected.
        """
        wanted = set(check_signals(signals) or SIGNALS)
        check_callable(handler, "signal handler")
        if wanted - {SIGNAL_ERROR}:
            check_call(handler, "signal handler", "signal", "task")
        if SIGNAL_ERROR in wanted:
            check_call(handler, "error handler", "signal", "task", "exc")
        origin = origin_of(handler)
        for place, old in enumerate(self._handlers):
            if old.call == handler:
                old.signals.update(wanted)
                break
            if origin.replaces(old.origin):
                self._handlers[place] = _Connected(handler, wanted, origin)
                break
        else:
            self._handlers.append(_Connected(handler, wanted, origin))
        self._index()

    def disconnect(self, handler: Handler, signals: Iterable[str] = ()) -> None:
        """Disconnect a handler from these signals, or from all signals if none is named.

        A handler that is not connected is no error. Raises `UnknownSignal`, and `ConfigurationError` for an object that
        cannot be a handler; then nothing was disconnected.
        """
        names = set(check_signals(signals) or SIGNALS)
        if not callable(handler):
            raise ConfigurationError(f"signal handler={handler!r}: must be the function that is connected")
        for connected in self._handlers:
            if connected.call == handler:
                connected.signals.difference_update(names)
        self._handlers = [connected for connected in self._handlers if connected.signals]
        self._index()

    def _index(self) -> None:
        connected = {name: tuple(one.call for one in self._handlers if name in one.signals) for name in SIGNALS}
        # Replaced, never changed: a thread that delivers a signal meanwhile goes on with the old dictionary.
        self.connected = {name: handlers for name, handlers in connected.items() if handlers}
        self.announces_births = not _OF_BIRTHS.isdisjoint(self.connected)

    def send(self, signal: str, task: Task, exc: BaseException | None = None) -> None:
        """Call the handlers of a signal in the order of registration.

        The handlers run in a copy of the caller's context (`contextvars`). `exc` is the exception that ended an
        attempt: while the handlers run, `sys.exc_info` returns it, so that ``logger.exception`` in a handler shows it.

        An `Exception` from a handler is logged, and the next handler is called. A `BaseException` that is no
        `Exception` leaves this method: it ends the thread, not only the handler.
        """
        run = copy_context().run
        if exc is None:
            run(self._call, signal, task, None)
            return
        frames, context = exc.__traceback__, exc.__context__
        try:
            raise exc  # noqa: TRY301 -- for the handlers alone
        except BaseException:  # noqa: BLE001 -- the same
            exc.__traceback__, exc.__context__ = frames, context
            run(self._call, signal, task, exc)

    def _call(self, signal: str, task: Task, exc: BaseException | None) -> None:
        for handler in self.connected.get(signal, ()):
            began = monotonic()
            try:
                with OneProcess():
                    returned = handler(signal, task, exc) if signal == SIGNAL_ERROR else handler(signal, task)
                if returned is not None:
                    refuse_unrun(returned)
            except Exception as failure:
                note_task_attribute(failure)
                log.exception(
                    "signal handler failed: signal=%s task=%s function=%s handler=%r",
                    signal, printable(task.id), printable(task.name), handler,
                )  # fmt: skip
            seconds = monotonic() - began
            if seconds > SLOW_SECONDS and handler not in self._slow:
                self._slow.append(handler)
                log.warning(
                    "signal handler is slow, and its caller waits for it: signal=%s seconds=%.1f handler=%r; let it "
                    "enqueue a task for what takes time (this is said once for each handler)",
                    signal, seconds, handler,
                )  # fmt: skip


def check_signals(signals: Iterable[str]) -> tuple[str, ...]:
    """Return the signals as a tuple. Raises `UnknownSignal`, which lists the known signals."""
    names = tuple(signals)
    for name in names:
        LIFECYCLE.by_signal(name)
    return names
