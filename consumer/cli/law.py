"""The commands about the law itself: what a table promises, and whether a trace keeps to it."""

import os
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import msgspec
import typer
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from lifecycle.analysis.checker import Checker, IllegalSequence
from lifecycle.analysis.grammar import automaton, count, expression, readable, sequences
from lifecycle.analysis.properties import properties
from lifecycle.analysis.trace import BadTraceLine, read
from lifecycle.consumer.loading import load_table
from lifecycle.core.table import LIFECYCLE, Lifecycle
from lifecycle.errors import ConfigurationError, FaultyTable

__all__ = ["check", "verify"]

FOUND_WRONG: Final = 1
ENUMERATED: Final = 200_000
"""As many sequences are listed one by one to see that they are as many as were counted."""
PROGRESS_EVERY: Final = 20_000
"""Lines."""

err = Console(stderr=True)

Named = Annotated[str | None, typer.Option("--table", metavar="MODULE:TABLE", help="Another table than this queue's.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


# verify ------------------------------------------------------------------------------------------------------------


def verify(
    target: Annotated[
        str | None, typer.Argument(metavar="[MODULE:TABLE]", help="A Lifecycle of your own, as in orders:TABLE.")
    ] = None,
    length: Annotated[int, typer.Option("--length", "-n", min=1, help="Count the legal sequences up to so long.")] = 8,
    every: Annotated[bool, typer.Option("--list", help="Print these sequences, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Prove what the table promises, and print its language: as an automaton, as an expression, and counted.

    Exit code 1 if something does not hold; for a table that cannot even be built every fault is named.
    """
    lifecycle = _table(target)
    found = [{"claim": one.claim, "holds": one.holds, "faults": list(one.faults)} for one in properties(lifecycle)]
    counts = count(lifecycle, length)
    total = sum(counts)
    if total <= ENUMERATED:
        listed = sum(1 for _ in sequences(lifecycle, length))
        faults = [] if listed == total else [f"{listed:,} instead of {total:,}"]
        claim = "listed one by one, there are as many legal sequences as were counted"
        found.append({"claim": claim, "holds": not faults, "faults": faults})
    if as_json:
        _verify_json(lifecycle, found, counts, length if every else 0)
    else:
        _verify_text(target, lifecycle, found, counts, length if every else 0)
    if not all(one["holds"] for one in found):
        raise typer.Exit(FOUND_WRONG)


def _verify_json(lifecycle: Lifecycle, found: list[dict[str, object]], counts: list[int], listed: int) -> None:
    machine = automaton(lifecycle)
    report: dict[str, object] = {
        "states": [state.name for state in lifecycle.states],
        "transitions": len(lifecycle.transitions),
        "properties": found,
        "automaton": [
            {"state": number, "members": members, "rests": number in machine.accepting, "moves": dict(moves)}
            for number, (members, moves) in enumerate(zip(machine.members, machine.moves, strict=True))
        ],
        "expression": expression(lifecycle),
        "readable": readable(lifecycle),
        "counts": counts,
    }
    if listed:
        report["sequences"] = list(sequences(lifecycle, listed))
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n")


def _verify_text(
    target: str | None, lifecycle: Lifecycle, found: list[dict[str, object]], counts: list[int], listed: int
) -> None:
    out = _console()
    title = f"{target or 'lifecycle.LIFECYCLE'}: {len(lifecycle.states)} states, {len(lifecycle.transitions)} rows"
    _say(out, Text(title, "bold"))
    for one in found:
        mark = ("✓ ", "green") if one["holds"] else ("✗ ", "bold red")
        faults = one["faults"]
        where = f": {', '.join(faults)}" if isinstance(faults, list) and faults else ""
        _say(out, Text.assemble(mark, f"{one['claim']}{where}"))
    machine = automaton(lifecycle)
    _say(out, Text(f"\nIts language, as the smallest automaton: {len(machine.moves)} states over signals", "bold"))
    table = Table("", "stands for", "may rest", "signal → state", box=None, header_style="bold", padding=(0, 2))
    for number, (members, moves) in enumerate(zip(machine.members, machine.moves, strict=True)):
        ends: dict[int, list[str]] = {}
        for signal, end in moves.items():
            ends.setdefault(end, []).append(signal)
        ways = "\n".join(f"{' | '.join(signals)} → {end}" for end, signals in ends.items())
        rests = "yes" if number in machine.accepting else ""
        table.add_row(
            Text(str(number)),
            Text(", ".join(["(no task yet)"] * (not number) + [*members])),
            rests,
            Text(ways or "nothing"),
        )
    out.print(table)
    _say(out, Text("\nA whole life, as a regular expression", "bold"))
    for name, line in readable(lifecycle).items():
        out.print(Padding(Text.assemble((name, "bold"), " = ", line), (0, 0, 0, 2), expand=False))
    _say(out, Text("\nLegal sequences of signals, whole lives or not", "bold"))
    for number, how_many in enumerate(counts, 1):
        _say(out, Text(f"  {number:>3} signal{'s' * (number > 1):1}  {how_many:>12,}"))
    _say(out, Text(f"  in all {'':5}{sum(counts):>12,}"))
    if listed:
        _say(out, Text("\nEach of them", "bold"))
        for signals in sequences(lifecycle, listed):
            sys.stdout.write(f"  {' '.join(signals)}\n")


# check -------------------------------------------------------------------------------------------------------------


def check(
    trace: Annotated[
        str, typer.Argument(metavar="[TRACE.jsonl]", help="Lines of {id, signal, at}; - or none: standard input.")
    ] = "-",
    table: Named = None,
    renamed: Annotated[
        Path | None, typer.Option("--map", metavar="FILE", help="JSON or TOML: another system's signal = the table's.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="A task's first signal must be its creation's.")] = False,
    complete: Annotated[bool, typer.Option("--complete", help="Every task must have come to rest at the end.")] = False,
    first: Annotated[bool, typer.Option("--first", help="Stop at the first line that is wrong.")] = False,
    as_json: AsJson = False,
) -> None:
    """Hold a recorded trace against the table: of each task the first signal that is not legal is named.

    Exit code 1 if there is one, or a line that cannot be read. A trace that was recorded in consumers alone, which do
    not hear what producers enqueue, is legal unless --strict.
    """
    lifecycle = _table(table)
    names = _read_map(renamed, lifecycle) if renamed is not None else {}
    audit = _Audit(Checker(lifecycle, from_start=strict), names, as_json=as_json)
    with ExitStack() as stack:
        file = _open(trace, stack)
        for found in audit.run(file, stack.enter_context(_progress(file)), complete=complete):
            audit.report(found)
            if first:
                break
    audit.close()
    if audit.wrong:
        raise typer.Exit(FOUND_WRONG)


class _Found(msgspec.Struct, omit_defaults=True):
    """Something wrong: a line that cannot be read, or a signal that is not legal. What programs get of it."""

    line: int | None
    fault: str
    id: str | None = None
    position: int | None = None
    signal: str | None = None
    after: str | None = None
    legal: tuple[str, ...] | None = None
    recorded: str | None = None
    """What the signal was called before it was renamed."""


class _Audit:
    """Goes through a trace, and counts what it finds. Keeps the ids of the tasks that were wrong, and nothing else."""

    def __init__(self, checker: Checker, names: Mapping[str, str], *, as_json: bool) -> None:
        self._checker, self._names, self._json = checker, names, as_json
        self._broken: set[str] = set()
        self._out = _console()
        self._bad = 0
        self._progress: Progress | None = None
        self._line = 0

    @property
    def wrong(self) -> int:
        """How many lines and tasks were."""
        return self._bad + len(self._broken)

    def run(self, file: BinaryIO, progress: Progress | None, *, complete: bool) -> Iterator[_Found]:
        """All that is wrong, in order: the bad lines, and for each task its first illegal signal."""
        feed, names, broken = self._checker.feed, self._names, self._broken
        self._progress = progress
        for self._line, line in read(file):
            if progress is not None and self._line % PROGRESS_EVERY == 0:
                done = file.tell() if file.seekable() else None
                progress.update(progress.task_ids[0], completed=done, description=f"{self._line:,} lines")
            if isinstance(line, BadTraceLine):
                self._bad += 1
                yield _Found(self._line, line.reason)
                continue
            signal = names.get(line.signal, line.signal)
            task = str(line.id)
            if not signal or (broken and task in broken):
                continue
            try:
                feed(signal, task)
            except IllegalSequence as fault:
                broken.add(task)
                recorded = line.signal if line.signal != signal else None
                yield _found(fault, self._line, recorded)
        if complete:
            for open_end in self._checker.unfinished():
                if open_end.task is not None and open_end.task not in broken:
                    broken.add(open_end.task)
                    yield _found(open_end, None, None)

    def report(self, found: _Found) -> None:
        """Print one."""
        if self._json:
            sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
            return
        if self._progress is not None and self._out.is_terminal:
            self._progress.stop()  # they share the screen
        where = f"line {found.line}: " if found.line is not None else "at the end: "
        was = f" ({found.recorded})" if found.recorded is not None else ""
        _say(self._out, Text.assemble(("✗ ", "bold red"), (where, "bold"), found.fault, was))

    def close(self) -> None:
        """Print the sum."""
        if self._json:
            sums = {
                "lines": self._line,
                "signals": self._checker.count,
                "tasks": self._checker.tasks,
                "bad_lines": self._bad,
                "illegal_tasks": len(self._broken),
                "legal": not self.wrong,
            }
            sys.stdout.write(msgspec.json.encode(sums).decode() + "\n")
            return
        seen = f"{_many(self._checker.count, 'signal')} of {_many(self._checker.tasks, 'task')}"
        if not self.wrong:
            _say(self._out, Text.assemble(("✓ ", "green"), f"{seen}: legal"))
            return
        faults = [_many(len(self._broken), "task") + " not legal"] * bool(self._broken)
        faults += [_many(self._bad, "line") + " not readable"] * bool(self._bad)
        _say(self._out, Text.assemble(("✗ ", "bold red"), f"{', '.join(faults)}; {seen} were legal"))


def _found(fault: IllegalSequence, line: int | None, recorded: str | None) -> _Found:
    return _Found(
        line, str(fault), fault.task, fault.position, fault.signal, fault.after, legal=fault.legal, recorded=recorded
    )


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _read_map(path: Path, lifecycle: Lifecycle) -> dict[str, str]:
    """What another system's signals are called here; those with an empty name are left out of the trace."""
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
    known = lifecycle.signals
    if not isinstance(names, dict):
        raise ConfigurationError(f"the map {path} is no object of names, as in {{'task-started': '{known[0]}'}}")
    for theirs, ours in names.items():
        if ours != "" and ours not in known:
            hint = "" if isinstance(ours, str) else " (a text is expected)"
            raise ConfigurationError(
                f"the map {path} calls {theirs!r} {ours!r}{hint}, which is no signal: there are {', '.join(known)}, "
                "and '' for what shall be left out"
            )
    return names


def _open(trace: str, stack: ExitStack) -> BinaryIO:
    if trace == "-":
        if sys.stdin.isatty():
            raise typer.BadParameter("give a file, or pipe a trace in: nobody types one")
        return sys.stdin.buffer
    try:
        return stack.enter_context(Path(trace).open("rb"))
    except OSError as error:
        raise ConfigurationError(f"the trace {trace} cannot be read: {error.strerror}") from None


@contextmanager
def _progress(file: BinaryIO) -> Iterator[Progress | None]:
    """A bar on the terminal, if there is one, that shows how much of the file was read; it is gone afterwards."""
    if not err.is_terminal:
        yield None
        return
    columns = [TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=err, transient=True, redirect_stdout=False, redirect_stderr=False) as progress:
        # Of a pipe nobody knows how long it is.
        progress.add_task("0 lines", total=os.fstat(file.fileno()).st_size if file.seekable() else None)
        yield progress


def _table(target: str | None) -> Lifecycle:
    """The table that a command is about; one that cannot be built is told of, and is what was found wrong."""
    if target is None:
        return LIFECYCLE
    try:
        return load_table(target)
    except ConfigurationError as error:
        if not isinstance(error.__cause__, FaultyTable):
            raise
        err.print(Text.assemble(("error:", "bold red"), " ", " ".join(str(error).split())), soft_wrap=True)
        raise typer.Exit(FOUND_WRONG) from None


def _console() -> Console:
    """Where results go; a file or a program gets lines as long as they are."""
    return Console() if sys.stdout.isatty() else Console(width=10_000)


def _say(out: Console, line: Text) -> None:
    """A line with its marks in colour, folded by the terminal and not by us."""
    out.print(line, soft_wrap=True, highlight=False)
