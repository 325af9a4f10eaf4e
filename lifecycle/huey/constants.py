"""Constants of Huey."""

from typing import Final

__all__ = ["WORKER_GREENLET", "WORKER_PROCESS", "WORKER_THREAD", "WORKER_TYPES"]

WORKER_THREAD: Final = "thread"
WORKER_GREENLET: Final = "greenlet"
WORKER_PROCESS: Final = "process"
WORKER_TYPES: Final = (WORKER_THREAD, WORKER_GREENLET, WORKER_PROCESS)
