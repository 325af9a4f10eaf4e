"""A thread that works for an object, and does not keep the object alive: it ends when the object is gone."""

import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from math import inf
from queue import Empty, SimpleQueue
from typing import TypeVar

__all__ = ["OwnedThread"]

T = TypeVar("T")


class OwnedThread:
    """A daemon thread that calls a function of its owner again and again, with pauses."""

    def __init__(
        self, owner: T, work: Callable[[T], float | None], name: str, *, first_pause_seconds: float = 0.0
    ) -> None:
        """Start the thread.

        `work`: called with the owner after each pause. It returns the length of the next pause (seconds;
        ``inf``: until `wake`), or ``None`` to end the thread. It must not be a method of the owner object, which would
        keep the owner alive; a function of its class is right.
        """
        # A queue, since a collected object may put something into it at any moment; an event could deadlock then.
        self._wakes: SimpleQueue[None] = SimpleQueue()
        weakref.finalize(owner, self._wakes.put, None).atexit = False
        self._thread = threading.Thread(
            target=_run, args=(weakref.ref(owner), work, self._wakes, first_pause_seconds), name=name, daemon=True
        )
        self._thread.start()

    def wake(self) -> None:
        """End the present pause, or the next one."""
        self._wakes.put(None)

    def join(self) -> None:
        """Wait for the end of the thread, unless this is the thread itself."""
        if self._thread is not threading.current_thread():
            self._thread.join()


def _run(
    reference: "weakref.ref[T]", work: Callable[[T], float | None], wakes: "SimpleQueue[None]", seconds: float | None
) -> None:
    while seconds is not None:
        with suppress(Empty):
            wakes.get(timeout=None if seconds == inf else seconds)
        owner = reference()
        if owner is None:
            return
        seconds = work(owner)
        del owner  # not kept alive during the pause
