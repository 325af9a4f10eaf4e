"""The handlers of this process's signals. A process that it forks (of a task, say) inherits none of them."""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Mapping
from types import FrameType
from typing import Final

__all__ = ["Handler", "give_back", "take"]

Handler = Callable[[int, FrameType | None], object] | int | None
"""As `signal.getsignal` has it."""

_before: Final[dict[int, list[Handler]]] = {}
"""Signal → what it did before each `take` that holds it, the outermost first."""
_mask = threading.local()


def take(
    numbers: Iterable[int], handler: Callable[[int, FrameType | None], object], before: Mapping[int, Handler]
) -> None:
    """Handle these signals until `give_back`: then they do what stands in `before`. In the main thread.

    One `take` may stand in another; after a fork, they do what stands in the outermost one's `before`.
    """
    for number in numbers:
        _before.setdefault(number, []).append(before[number])
        signal.signal(number, handler)


def give_back(numbers: Iterable[int]) -> None:
    """Have these signals do what they did before. In the main thread."""
    for number in numbers:
        _set(number, _before[number].pop())
        if not _before[number]:
            del _before[number]


def _set(number: int, handler: Handler) -> None:
    signal.signal(number, signal.SIG_DFL if handler is None else handler)


# A signal that comes to a child before its interpreter is ready is forgotten: it has to wait until that is done.


def _block() -> None:
    _mask.before = signal.pthread_sigmask(signal.SIG_BLOCK, list(_before))


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _mask.before)


def _forget() -> None:
    for number, handlers in _before.items():
        _set(number, handlers[0])
    _before.clear()
    _unblock()


os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=_forget)
