"""Traces: files of signals, one line of JSON each: ``{"id": "…", "signal": "executing", "at": 1700000000.25}``.

`TraceWriter` writes traces; ``lifecycle check`` and `lifecycle.analysis.checker` check them against the table.
"""

import os
from collections.abc import Iterator
from typing import BinaryIO, Final, Protocol, Self

import attrs
import msgspec

from lifecycle.clock import Clock, SystemClock

__all__ = ["BadTraceLine", "TraceLine", "TraceWriter", "read"]

LINE_BYTES_LIMIT: Final = 1_000_000
"""Limit for one line, so that a file that is no trace is not read into memory whole."""


class TraceLine(msgspec.Struct, omit_defaults=True):
    """Line of a trace; other keys of the JSON object are ignored."""

    id: str | int
    """Id of the task."""
    signal: str
    at: float | None = None
    """Time of recording (UTC seconds), for readers; the order of the lines decides."""
    name: str | None = None
    """Name of the function."""


@attrs.frozen
class BadTraceLine:
    """Line that is no line of a trace."""

    reason: str


class AnnouncedTask(Protocol):
    """Task of a signal: a `lifecycle.Task`, a task of Huey, or any object with these attributes."""

    @property
    def id(self) -> str:
        """Id of the task."""
        ...

    @property
    def name(self) -> str:
        """Name of its function."""
        ...


class TraceWriter:
    """Handler that writes every signal to a file: ``queue.signal()(TraceWriter("trace.jsonl"))``.

    Each line is appended in a single write, so that threads and processes of one host can share the file. The lines of
    one task are in the order in which its signals were sent. A line that cannot be written (no space) raises `OSError`;
    a queue logs the error and continues. The file is not synced to disk.
    """

    def __init__(self, path: str | os.PathLike[str], clock: Clock | None = None) -> None:
        """Create the file if it is missing; raises `OSError` if it is not writable. `clock` gives `TraceLine.at`."""
        self._path = os.fspath(path)
        self._file: int | None = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._clock = clock or SystemClock()
        self._ends_mid_line = False

    def __call__(self, signal: str, task: AnnouncedTask, exc: BaseException | None = None) -> None:
        """Handle a signal of this queue or of Huey."""
        del exc
        self.write(signal, task.id, task.name)

    def write(self, signal: str, task_id: str, name: str | None = None) -> None:
        """Write a line; for queues that call handlers in another way. Does nothing after `close`."""
        file = self._file
        if file is None:
            return
        line = msgspec.json.encode(TraceLine(task_id, signal, self._clock.now(), name)) + b"\n"
        if self._ends_mid_line:  # the last write was cut short
            line = b"\n" + line
        written = os.write(file, line)
        self._ends_mid_line = written != len(line)
        if self._ends_mid_line:
            raise OSError(f"{self._path}: only {written} of {len(line)} bytes were written")

    def close(self) -> None:
        """Close the file. Later signals are not recorded."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:  # nothing is buffered: without `close` no line is lost
        if hasattr(self, "_file"):  # False if the file could not be opened
            self.close()


def read(file: BinaryIO) -> Iterator[tuple[int, TraceLine | BadTraceLine]]:
    """Yield the lines of a trace with their numbers (1 is the first); empty lines are left out.

    A line that cannot be read becomes a `BadTraceLine`, and reading continues with the next line.
    """
    decode = msgspec.json.Decoder(TraceLine).decode
    number = 0
    while text := file.readline(LINE_BYTES_LIMIT):
        number += 1
        if len(text) == LINE_BYTES_LIMIT and not text.endswith(b"\n"):
            while (rest := file.readline(LINE_BYTES_LIMIT)) and not rest.endswith(b"\n"):
                pass
            yield number, BadTraceLine(f"longer than {LINE_BYTES_LIMIT:,} bytes")
            continue
        try:
            yield number, decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if text.strip():
                yield number, BadTraceLine(str(error))
        except RecursionError:
            yield number, BadTraceLine("nested too deeply")
