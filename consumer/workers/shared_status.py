"""The status of a worker's process, in shared memory that its consumer can read at any moment.

Also while the process is stuck in C with the interpreter's lock, and after it was killed: a pipe would need its help.
One byte is written by the consumer: the request to stop. It holds from that moment on, not once a thread has read it.
"""

import struct
from multiprocessing.context import BaseContext
from typing import Final, NamedTuple

from lifecycle.clock import monotonic
from lifecycle.core.task import Task

__all__ = ["READY", "RECYCLED", "SharedStatus", "StatusSnapshot"]

_WORKER: Final = struct.Struct("=dqB")  # last sign of life, number of attempts, stage
_MAX_ID_BYTES: Final = 255
_TASK: Final = struct.Struct(f"=ddqB{_MAX_ID_BYTES}s")  # since, deadline, attempt, length of the id, id

STARTING, READY, RECYCLED = range(3)


class StatusSnapshot(NamedTuple):
    """A copy of the status. It may have been read while it was written: compare it with the store."""

    beat: float
    """The last sign of life (seconds of the monotonic clock, which all processes of a host share)."""
    attempts: int
    """How many attempts the worker has made."""
    ready: bool
    """True once the worker has begun to work."""
    recycled: bool
    """True if the worker has ended by itself, since it had run enough tasks."""
    since: float
    """When the running function began."""
    deadline: float
    """When the running function must be over."""
    attempt: int
    task_id: str | None
    """The id of the running task; ``None``: none runs, or its id is longer than 255 bytes."""


class SharedStatus:
    """Written by the worker's process, read by its consumer; the request to stop the other way."""

    def __init__(self, context: BaseContext) -> None:
        self._memory = context.RawArray("B", _WORKER.size + _TASK.size + 1)
        self._attempts = 0
        self._stage = STARTING

    def set_stage(self, stage: int) -> None:
        """Write that the worker is `READY`, or `RECYCLED`."""
        self._stage = stage
        self.beat()

    def beat(self) -> None:
        """Write a sign of life."""
        _WORKER.pack_into(self._memory, 0, monotonic(), self._attempts, self._stage)

    def set_task(self, task: Task | None) -> None:
        """Write that a task's function begins; ``None``: the function is over."""
        if task is None:
            self._attempts += 1
            _TASK.pack_into(self._memory, _WORKER.size, 0.0, 0.0, 0, 0, b"")
            return
        now = monotonic()
        task_id = task.id.encode()
        length = len(task_id) if len(task_id) <= _MAX_ID_BYTES else 0
        deadline = float("inf") if task.timeout is None else now + task.timeout
        _TASK.pack_into(self._memory, _WORKER.size, now, deadline, task.attempt, length, task_id)

    def request_stop(self) -> None:
        """Request, as the consumer, that the worker finishes running tasks and claims no more."""
        self._memory[-1] = 1

    @property
    def stop_requested(self) -> bool:
        """True once the consumer has requested a stop."""
        return bool(self._memory[-1])

    def read(self) -> StatusSnapshot:
        """Return the status as it is now."""
        data = bytes(self._memory)
        beat, attempts, stage = _WORKER.unpack_from(data)
        since, deadline, attempt, length, name = _TASK.unpack_from(data, _WORKER.size)
        task_id = name[:length].decode(errors="replace") if length else None
        return StatusSnapshot(beat, attempts, stage != STARTING, stage == RECYCLED, since, deadline, attempt, task_id)
