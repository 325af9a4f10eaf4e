"""Figures of the trials, as a table: on the terminal, and in the documentation."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from faults.scenarios import Report
from rich.table import Table

__all__ = ["PAGE", "page_with", "table", "text"]

PAGE = Path(__file__).parents[2] / "docs" / "background" / "guarantees.md"
MARKERS = r"(<!-- measured: faults -->\n\n).*(\n\n<!-- end of what was measured -->)"
COLUMNS = (
    "scenario", "store", "workers", "tasks", "what was done", "seconds", "functions run", "interrupted", "done again",
    "unexplained", "lost", "illegal", "finished twice", "out of order",
)  # fmt: skip
WRONG = ("unexplained", "lost", "illegal", "finished twice", "out of order")


def row(report: Report) -> list[str]:
    """Return the figures of a trial, in the order of the columns."""
    audit = report.audit
    more = ", ".join(f"{number:,} {what}" for what, number in sorted(report.figures.items()) if number)
    return [
        report.scenario,
        report.store,
        ", ".join(report.kinds),
        f"{audit.tasks:,}",
        f"{report.disturbances} ({more})" if more else report.disturbances,
        f"{report.seconds:.0f}",
        f"{audit.executions:,}",
        f"{audit.again:,}",
        f"{audit.done_again:,}",
        *(f"{audit.count(kind):,}" for kind in WRONG),
    ]


def table(reports: Iterable[Report]) -> Table:
    """Return the table for the terminal."""
    made = Table(*COLUMNS)
    for report in reports:
        made.add_row(*row(report), style="" if report.passed else "red")
    return made


def text(reports: Sequence[Report], seed: int) -> str:
    """Return the table for the documentation."""
    head = [f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}"]
    return "\n".join([*head, *(f"| {' | '.join(row(report))} |" for report in reports), "", f"Seed {seed}."])


def page_with(page: str, part: str) -> str:
    """Return the page with the figures replaced by `part`."""
    return re.sub(MARKERS, lambda found: f"{found[1]}{part}{found[2]}", page, flags=re.DOTALL)
