"""What a worker's process tells of itself, in memory that its consumer can read at any moment.

Also while it is stuck in C with the interpreter's lock, and after it was killed: a pipe would need its help. One word
there is the consumer's: that this worker is to go home. It holds from that moment on, not once a thread has read it.
"""

import struct
from multiprocessing.context import BaseContext
from typing import Final, NamedTuple

from lifecycle.clock import monotonic
from lifecycle.core.task import Task

__all__ = ["SharedStatus", "StatusSnapshot"]

_LIFE: Final = struct.Struct("=dqB")  # last beat, attempts made, ready, or retired
_LONGEST: Final = 255
_BODY: Final = struct.Struct(f"=ddqB{_LONGEST}s")  # since, deadline, attempt, length of the id, id

ABSENT, READY, RETIRED = range(3)


class StatusSnapshot(NamedTuple):
    """What stands on a slate. It may be written upon meanwhile: hold it against the store."""

    beat: float
    """When it last gave a sign of life (seconds of the monotonic clock, which all processes of a host share)."""
    ran: int
    """How many attempts it has made."""
    ready: bool
    """Has it begun to work?"""
    retired: bool
    """Has it gone home, since it was spent?"""
    since: float
    """When the body that runs began."""
    deadline: float
    """When it has to be over."""
    attempt: int
    task_id: str | None
    """Whose body runs; ``None``: none does, or its id is longer than 255 bytes."""


class SharedStatus:
    """Written by one process, read by another; but for `sent_home`."""

    def __init__(self, context: BaseContext) -> None:
        self._memory = context.RawArray("B", _LIFE.size + _BODY.size + 1)
        self._ran = 0
        self._stage = ABSENT

    def stage(self, stage: int) -> None:
        """Say that it is `READY`, or `RETIRED`."""
        self._stage = stage
        self.beat()

    def beat(self) -> None:
        """Give a sign of life."""
        _LIFE.pack_into(self._memory, 0, monotonic(), self._ran, self._stage)

    def note(self, task: Task | None) -> None:
        """A body begins, or is over."""
        if task is None:
            self._ran += 1
            _BODY.pack_into(self._memory, _LIFE.size, 0.0, 0.0, 0, 0, b"")
            return
        now = monotonic()
        name = task.id.encode()
        length = len(name) if len(name) <= _LONGEST else 0
        deadline = float("inf") if task.timeout is None else now + task.timeout
        _BODY.pack_into(self._memory, _LIFE.size, now, deadline, task.attempt, length, name)

    def send_home(self) -> None:
        """Said by the consumer: finish what runs, and claim nothing more."""
        self._memory[-1] = 1

    @property
    def sent_home(self) -> bool:
        """Has the consumer said so?"""
        return bool(self._memory[-1])

    def read(self) -> StatusSnapshot:
        """What stands there now."""
        data = bytes(self._memory)
        beat, ran, stage = _LIFE.unpack_from(data)
        since, deadline, attempt, length, name = _BODY.unpack_from(data, _LIFE.size)
        task_id = name[:length].decode(errors="replace") if length else None
        return StatusSnapshot(beat, ran, stage != ABSENT, stage == RETIRED, since, deadline, attempt, task_id)
