"""``lifecycle check``: a recorded trace, compared with a table."""

import os
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Final

import click
import msgspec
from click.exceptions import Exit
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from lifecycle.analysis.checker import Checker, IllegalSequence
from lifecycle.analysis.trace import BadTraceLine, read
from lifecycle.consumer.cli.options import FOUND_WRONG, Argument, command, find_table, json_option
from lifecycle.consumer.cli.output import console, print_json_line, print_line
from lifecycle.core.table import Lifecycle
from lifecycle.errors import ConfigurationError
from lifecycle.escaping import printable

__all__ = ["check"]

PROGRESS_LINE_COUNT: Final = 20_000
"""The progress bar is updated after so many lines."""
DETAILS: Final = """
Exit code 1 if there is such a signal, or a line that cannot be read. A trace that was recorded in consumers alone,
which do not see what producers enqueue, is legal unless --strict.
"""


@command("check", DETAILS)
@click.argument(
    "trace",
    cls=Argument,
    metavar="[TRACE.jsonl]",
    required=False,
    default="-",
    about="Lines of {id, signal, at}; - or none: standard input.",
)
@click.option("--table", metavar="MODULE:TABLE", help="Another table than that of tasks.")
@click.option(
    "--map",
    "map_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="JSON or TOML: another system's signal = the table's.",
)
@click.option("--strict", is_flag=True, help="A task's first signal must be its creation's.")
@click.option("--complete", is_flag=True, help="Every task must rest at the end.")
@click.option("--first", is_flag=True, help="Stop at the first line that is wrong.")
@json_option
def check(
    trace: str, table: str | None, map_file: Path | None, strict: bool, complete: bool, first: bool, as_json: bool
) -> None:
    """Read a trace, and print each fault and the sums."""
    lifecycle = find_table(table)
    names = _read_map(map_file, lifecycle) if map_file is not None else {}
    audit = _Audit(Checker(lifecycle, from_start=strict), names, as_json=as_json)
    with ExitStack() as stack:
        file = _open_trace(trace, stack)
        for fault in audit.run(file, stack.enter_context(_progress_bar(file)), complete=complete):
            audit.print_fault(fault)
            if first:
                break
    audit.print_sums()
    if audit.fault_count:
        raise Exit(FOUND_WRONG)


class _Fault(msgspec.Struct, omit_defaults=True):
    """A line that cannot be read, or a signal that is not legal, as it is printed with ``--json``."""

    line: int | None
    fault: str
    id: str | None = None
    position: int | None = None
    signal: str | None = None
    after: str | None = None
    legal: tuple[str, ...] | None = None
    recorded: str | None = None
    """The signal's name before ``--map`` renamed it."""


class _Audit:
    """Reads a trace and counts its faults. Remembers the ids of the tasks with a fault, and nothing else."""

    def __init__(self, checker: Checker, names: Mapping[str, str], *, as_json: bool) -> None:
        self._checker, self._names, self._json = checker, names, as_json
        self._broken: set[str] = set()
        self._out = console()
        self._unreadable_count = 0
        self._progress: Progress | None = None
        self._line = 0

    @property
    def fault_count(self) -> int:
        """The number of lines that cannot be read and of tasks that are not legal."""
        return self._unreadable_count + len(self._broken)

    def run(self, file: BinaryIO, progress: Progress | None, *, complete: bool) -> Iterator[_Fault]:
        """Yield all faults in order: the unreadable lines, and the first illegal signal of each task."""
        feed, names, broken = self._checker.feed, self._names, self._broken
        self._progress = progress
        for self._line, line in read(file):
            if progress is not None and self._line % PROGRESS_LINE_COUNT == 0:
                done = file.tell() if file.seekable() else None
                progress.update(progress.task_ids[0], completed=done, description=f"{self._line:,} lines")
            if isinstance(line, BadTraceLine):
                self._unreadable_count += 1
                yield _Fault(self._line, line.reason)
                continue
            signal = names.get(line.signal, line.signal)
            task = str(line.id)
            if not signal or (broken and task in broken):
                continue
            try:
                feed(signal, task)
            except IllegalSequence as error:
                broken.add(task)
                yield _illegal(error, self._line, line.signal if line.signal != signal else None)
        if complete:
            for unfinished in self._checker.unfinished():
                if unfinished.task is not None and unfinished.task not in broken:
                    broken.add(unfinished.task)
                    yield _illegal(unfinished, None, None)

    def print_fault(self, fault: _Fault) -> None:
        """Print a fault as a line of JSON or of text."""
        if self._json:
            print_json_line(fault)
            return
        if self._progress is not None and self._out.is_terminal:
            self._progress.stop()  # both write on the same screen
        where = f"line {fault.line}: " if fault.line is not None else "at the end: "
        recorded = f" ({printable(fault.recorded)})" if fault.recorded is not None else ""
        print_line(self._out, Text.assemble(("✗ ", "bold red"), (where, "bold"), printable(fault.fault), recorded))

    def print_sums(self) -> None:
        """Print the last line."""
        if self._json:
            sums = {
                "lines": self._line,
                "signals": self._checker.count,
                "tasks": self._checker.tasks,
                "bad_lines": self._unreadable_count,
                "illegal_tasks": len(self._broken),
                "legal": not self.fault_count,
            }
            print_json_line(sums)
            return
        seen = f"{_plural(self._checker.count, 'signal')} of {_plural(self._checker.tasks, 'task')}"
        if not self.fault_count:
            print_line(self._out, Text.assemble(("✓ ", "green"), f"{seen}: legal"))
            return
        faults = [_plural(len(self._broken), "task") + " not legal"] * bool(self._broken)
        faults += [_plural(self._unreadable_count, "line") + " not readable"] * bool(self._unreadable_count)
        print_line(self._out, Text.assemble(("✗ ", "bold red"), f"{', '.join(faults)}; {seen} were legal"))


def _illegal(error: IllegalSequence, line: int | None, recorded: str | None) -> _Fault:
    return _Fault(
        line, str(error), error.task, error.position, error.signal, error.after, legal=error.legal, recorded=recorded
    )


def _plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _read_map(path: Path, lifecycle: Lifecycle) -> dict[str, str]:
    """Return another system's signals → those of `lifecycle`, or ``""`` for a signal that is left out.

    Raises `ConfigurationError`.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"the map {path} cannot be read: {error.strerror}") from None
    try:
        if path.suffix == ".toml":
            names: object = tomllib.loads(text.decode())
        elif path.suffix == ".json":
            names = msgspec.json.decode(text)
        else:
            raise ConfigurationError(f"the map {path} is neither .json nor .toml")
    except (tomllib.TOMLDecodeError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the map {path} cannot be read: {error}") from None
    except RecursionError:
        raise ConfigurationError(f"the map {path} cannot be read: it is nested too deeply") from None
    known = lifecycle.signals
    if not isinstance(names, dict):
        raise ConfigurationError(f"the map {path} is no object of names, as in {{'task-started': '{known[0]}'}}")
    for theirs, ours in names.items():
        if ours != "" and ours not in known:
            hint = "" if isinstance(ours, str) else " (a text is expected)"
            raise ConfigurationError(
                f"the map {path} calls {theirs!r} {_shown(ours)}{hint}, which is no signal: there are "
                f"{', '.join(known)}, and '' for signals to leave out"
            )
    return names


def _shown(value: object) -> str:
    try:
        return repr(value)
    except RecursionError:
        return "something that is nested too deeply"


def _open_trace(trace: str, stack: ExitStack) -> BinaryIO:
    if trace == "-":
        if sys.stdin.isatty():
            raise click.UsageError("name a file, or pipe a trace to the standard input, which is a terminal")
        return sys.stdin.buffer
    try:
        return stack.enter_context(Path(trace).open("rb"))
    except OSError as error:
        raise ConfigurationError(f"the trace {trace} cannot be read: {error.strerror}") from None


@contextmanager
def _progress_bar(file: BinaryIO) -> Iterator[Progress | None]:
    """Show on a terminal how much of the file is read; afterwards the bar is removed."""
    screen = Console(stderr=True)
    if not screen.is_terminal:
        yield None
        return
    columns = [TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=screen, transient=True, redirect_stdout=False, redirect_stderr=False) as progress:
        # The length of a pipe is not known.
        progress.add_task("0 lines", total=os.fstat(file.fileno()).st_size if file.seekable() else None)
        yield progress
