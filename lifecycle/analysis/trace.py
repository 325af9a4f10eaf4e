"""Traces: signals in a file, a line of JSON each, as ``{"id": "…", "signal": "executing", "at": 1700000000.25}``.

A `TraceWriter` writes them; ``lifecycle check`` and `lifecycle.analysis.checker` hold them against the table.
"""

import os
from collections.abc import Iterator
from typing import BinaryIO, Final, Protocol, Self

import attrs
import msgspec

from lifecycle.clock import Clock, SystemClock

__all__ = ["BadTraceLine", "TraceLine", "TraceWriter", "read"]

LONGEST: Final = 1_000_000
"""Bytes that a line may have: a file that is none of ours shall not be taken into memory whole."""


class TraceLine(msgspec.Struct, omit_defaults=True):
    """A line of a trace; what else stands in it is ignored."""

    id: str | int
    """The task's."""
    signal: str
    at: float | None = None
    """When it was heard (UTC seconds). For people: the order is that of the lines."""
    name: str | None = None
    """The function's."""


@attrs.frozen
class BadTraceLine:
    """A line that is none of a trace."""

    reason: str


class Announced(Protocol):
    """What a signal is about: a `lifecycle.Task`, Huey's, or whatever has these."""

    @property
    def id(self) -> str:
        """Of the task."""
        ...

    @property
    def name(self) -> str:
        """Of its function."""
        ...


class TraceWriter:
    """Writes down all that it hears: ``queue.signal()(TraceWriter("trace.jsonl"))``.

    Appends to the file, each line in a single write, so that the threads of a process and any number of processes on
    one host can share it. Lines of one task stand in the order in which its signals were sent. A line that cannot be
    written (no space) raises `OSError`; a queue logs that and goes on. Nothing is synced to disk.
    """

    def __init__(self, path: str | os.PathLike[str], clock: Clock | None = None) -> None:
        """Makes the file if it is not there; raises `OSError` if it cannot be written to. `clock`: for `TraceLine.at`."""
        self._path = os.fspath(path)
        self._file: int | None = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._clock = clock or SystemClock()
        self._torn = False

    def __call__(self, signal: str, task: Announced, exc: BaseException | None = None) -> None:
        """A handler for signals, of this queue or of Huey's."""
        del exc
        self.write(signal, task.id, task.name)

    def write(self, signal: str, task_id: str, name: str | None = None) -> None:
        """Write a line; for queues whose handlers are called in another way. After `close` it does nothing."""
        file = self._file
        if file is None:
            return
        line = msgspec.json.encode(TraceLine(task_id, signal, self._clock.now(), name)) + b"\n"
        if self._torn:  # the end of half a line
            line = b"\n" + line
        written = os.write(file, line)
        self._torn = written != len(line)
        if self._torn:
            raise OSError(f"{self._path}: {written} of {len(line)} bytes could be written")

    def close(self) -> None:
        """Close the file, once nobody sends any more. What is heard later is not recorded."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:  # nothing is buffered: whoever attaches it and forgets it loses nothing
        if hasattr(self, "_file"):  # it could be opened
            self.close()


def read(file: BinaryIO) -> Iterator[tuple[int, TraceLine | BadTraceLine]]:
    """The lines of a trace, each with its number (1 is the first), as they come; empty ones are left out.

    A line that is none is given as such, and the next one read.
    """
    decode = msgspec.json.Decoder(TraceLine).decode
    number = 0
    while text := file.readline(LONGEST):
        number += 1
        if len(text) == LONGEST and not text.endswith(b"\n"):
            while (rest := file.readline(LONGEST)) and not rest.endswith(b"\n"):
                pass
            yield number, BadTraceLine(f"longer than {LONGEST:,} bytes")
            continue
        try:
            yield number, decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if text.strip():
                yield number, BadTraceLine(str(error))
