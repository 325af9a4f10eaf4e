"""Locks with Huey's names."""

from lifecycle import locks as core
from lifecycle.errors import TaskLockedException

__all__ = ["TaskLock"]


class TaskLock(core.TaskLock):
    """A named lock, a context manager and a decorator; `acquire` raises if the lock is taken."""

    _was_acquired = False

    def acquire(self) -> bool:
        """Acquire the lock without waiting. Raises `TaskLockedException` if the lock is held already."""
        self._was_acquired = True
        if not super().acquire():
            raise TaskLockedException(f"unable to acquire lock {self.name}: it is held already")
        return True

    def release(self) -> bool:
        """Release the lock; an object that has not acquired it frees the lock for any holder, as `clear` does.

        Returns False if the lock was free, or has another holder meanwhile.
        """
        return super().release() if self._was_acquired else self.clear()

    locked = core.TaskLock.is_locked
