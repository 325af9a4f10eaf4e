"""Handlers of operating system signals, set and restored in pairs. A forked child process does not inherit them."""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Mapping
from types import FrameType
from typing import Final

__all__ = ["Handler", "restore_handlers", "set_handler"]

Handler = Callable[[int, FrameType | None], object] | int | None
"""The values that `signal.getsignal` returns; ``None``: a handler that was not set from Python."""

_previous_handlers: Final[dict[int, list[Handler]]] = {}
"""Signal → the handler before each `set_handler` that is in effect, outermost first."""
_forking_thread = threading.local()
"""`mask`: the thread's signal mask before a fork."""


def set_handler(
    numbers: Iterable[int], handler: Callable[[int, FrameType | None], object], previous: Mapping[int, Handler]
) -> None:
    """Set the handler of these signals until `restore_handlers`. Call both only in the main thread.

    `previous`: signal → the handler to restore. Calls may be nested: a forked child gets the outermost call's
    previous handlers.
    """
    for number in numbers:
        _previous_handlers.setdefault(number, []).append(previous[number])
        signal.signal(number, handler)


def restore_handlers(numbers: Iterable[int]) -> None:
    """Restore the handlers that these signals had before the last `set_handler`."""
    for number in numbers:
        _restore(number, _previous_handlers[number].pop())
        if not _previous_handlers[number]:
            del _previous_handlers[number]


def _restore(number: int, handler: Handler) -> None:
    signal.signal(number, signal.SIG_DFL if handler is None else handler)


# Signals are blocked during a fork: the interpreter would lose a signal that reaches the child before it is ready.


def _block_signals() -> None:
    _forking_thread.mask = signal.pthread_sigmask(signal.SIG_BLOCK, list(_previous_handlers))


def _unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking_thread.mask)


def _restore_all() -> None:
    for number, handlers in _previous_handlers.items():
        _restore(number, handlers[0])
    _previous_handlers.clear()
    _unblock_signals()


os.register_at_fork(before=_block_signals, after_in_parent=_unblock_signals, after_in_child=_restore_all)
