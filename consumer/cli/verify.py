"""``lifecycle verify``: the properties of a table, and its language."""

import sys
from typing import Final

import click
from click.exceptions import Exit
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lifecycle.analysis.grammar import automaton, count, expression, readable, sequences
from lifecycle.analysis.properties import properties
from lifecycle.consumer.cli.options import FOUND_WRONG, Argument, command, find_table, json_option
from lifecycle.consumer.cli.output import console, print_json, print_line
from lifecycle.core.table import Lifecycle

__all__ = ["verify"]

LISTED_LIMIT: Final = 200_000
"""Up to so many sequences are listed one by one, to check that there are as many as were counted."""
DETAILS: Final = """
Exit code 1 if a property does not hold. For a table that cannot even be built, every fault is named.
"""


@command("verify", DETAILS)
@click.argument(
    "target",
    cls=Argument,
    metavar="[MODULE:TABLE]",
    required=False,
    about="A Lifecycle of your own, as in orders:TABLE.",
)
@click.option(
    "-n",
    "--length",
    type=click.IntRange(min=1),
    metavar="LENGTH",
    default=8,
    show_default=True,
    help="Count the legal sequences of up to so many signals.",
)
@click.option("--list", "with_list", is_flag=True, help="Print these sequences, too.")
@json_option
def verify(target: str | None, length: int, with_list: bool, as_json: bool) -> None:
    """Compute and print the properties and the language of a table."""
    lifecycle = find_table(target)
    found: list[dict[str, object]] = [
        {"claim": one.claim, "holds": one.holds, "faults": list(one.faults)} for one in properties(lifecycle)
    ]
    counts = count(lifecycle, length)
    total = sum(counts)
    if total <= LISTED_LIMIT:
        listed = sum(1 for _ in sequences(lifecycle, length))
        faults = [] if listed == total else [f"{listed:,} instead of {total:,}"]
        claim = "listed one by one, there are as many legal sequences as were counted"
        found.append({"claim": claim, "holds": not faults, "faults": faults})
    if as_json:
        _print_report(lifecycle, found, counts, length if with_list else 0)
    else:
        title = f"{target or 'lifecycle.LIFECYCLE'}: {len(lifecycle.states)} states, {len(lifecycle.transitions)} rows"
        _print_text(title, lifecycle, found, counts, length if with_list else 0)
    if not all(one["holds"] for one in found):
        raise Exit(FOUND_WRONG)


def _print_report(lifecycle: Lifecycle, found: list[dict[str, object]], counts: list[int], listed_length: int) -> None:
    """Print all as JSON, with the sequences of up to `listed_length` signals."""
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
    if listed_length:
        report["sequences"] = list(sequences(lifecycle, listed_length))
    print_json(report)


def _print_text(
    title: str, lifecycle: Lifecycle, found: list[dict[str, object]], counts: list[int], listed_length: int
) -> None:
    """Print all for people, with the sequences of up to `listed_length` signals."""
    out = console()
    print_line(out, Text(title, "bold"))
    for one in found:
        mark = ("✓ ", "green") if one["holds"] else ("✗ ", "bold red")
        faults = one["faults"]
        where = f": {', '.join(faults)}" if isinstance(faults, list) and faults else ""
        print_line(out, Text.assemble(mark, f"{one['claim']}{where}"))
    _print_automaton(out, lifecycle)
    print_line(out, Text("\nA whole life, as a regular expression", "bold"))
    for name, line in readable(lifecycle).items():
        out.print(Padding(Text.assemble((name, "bold"), " = ", line), (0, 0, 0, 2), expand=False))
    print_line(out, Text("\nLegal sequences of signals, whole lives or not", "bold"))
    for number, number_of_sequences in enumerate(counts, 1):
        print_line(out, f"  {number:>3} signal{'s' * (number > 1):1}  {number_of_sequences:>12,}")
    print_line(out, f"  in all {'':5}{sum(counts):>12,}")
    if listed_length:
        print_line(out, Text("\nEach of them", "bold"))
        for signals in sequences(lifecycle, listed_length):
            sys.stdout.write(f"  {' '.join(signals)}\n")


def _print_automaton(out: Console, lifecycle: Lifecycle) -> None:
    machine = automaton(lifecycle)
    print_line(
        out, Text(f"\nIts language, as the smallest automaton: {len(machine.moves)} states over signals", "bold")
    )
    table = Table("", "stands for", "may rest", "signal → state", box=None, header_style="bold", padding=(0, 2))
    for number, (members, moves) in enumerate(zip(machine.members, machine.moves, strict=True)):
        signals_to: dict[int, list[str]] = {}
        for signal, target in moves.items():
            signals_to.setdefault(target, []).append(signal)
        lines = "\n".join(f"{' | '.join(signals)} → {target}" for target, signals in signals_to.items())
        table.add_row(
            Text(str(number)),
            Text(", ".join(["(no task yet)"] * (not number) + [*members])),
            "yes" if number in machine.accepting else "",
            Text(lines or "nothing"),
        )
    out.print(table)
