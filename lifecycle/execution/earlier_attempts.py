"""Tasks that were recovered and claimed again, while their functions still run in this process.

The lease of such a task had lapsed: the process was frozen, or the store could not be reached. The claim waits, so that
no function runs beside itself. The lease of the worker that has claimed the task is prolonged meanwhile.
"""

import logging
from collections import deque
from contextlib import suppress
from typing import Final

from lifecycle.clock import pause
from lifecycle.execution.attempt import current_task
from lifecycle.execution.engine import Engine
from lifecycle.storage.base import Claim

__all__ = ["EarlierAttempts"]

log = logging.getLogger("lifecycle.worker")

LOOK_SECONDS: Final = 0.1
"""Time between two looks whether the function has ended."""


class EarlierAttempts:
    """The claims of one worker whose tasks still run in this process, from an earlier attempt."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.postponed: deque[Claim] = deque()
        """Claims that wait, of a worker with several slots."""
        self.interrupted = False
        """True: nothing waits any more, since the worker stops."""

    def has(self, claim: Claim) -> bool:
        """Return whether the function of a claimed task still runs."""
        return claim.task.id in self._engine.running and not self.interrupted

    def postpone(self, claim: Claim, *, has_slots: bool) -> bool:
        """Postpone a claim whose function still runs; without slots, wait here instead, and return False."""
        if current_task.get() is not None:  # that function itself, or one like it, has called `run_next`
            return False
        log.warning(
            "postponed a task: its function still runs here, from an attempt that was recovered task=%s", claim.task
        )
        if has_slots:
            self.postponed.append(claim)
            return True
        while self.has(claim):
            pause(LOOK_SECONDS)
        return False

    def resume(self, claimed: deque[Claim]) -> None:
        """Move the claims whose functions have ended to `claimed`."""
        for _ in range(len(self.postponed)):
            with suppress(IndexError):  # another thread hands the claims back
                claim = self.postponed.popleft()
                (self.postponed if self.has(claim) else claimed).append(claim)
