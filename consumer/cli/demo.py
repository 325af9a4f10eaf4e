"""``lifecycle demo``: every scenario of the lifecycle, run by real consumers."""

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

import click
from click.exceptions import Exit
from rich.console import Console

from lifecycle.consumer.cli.options import FOUND_WRONG, command, json_option
from lifecycle.consumer.demo.demo import run_demo

__all__ = ["demo"]

DETAILS = """
Some consumers are killed or frozen on the way. Each scenario is printed with its promise, its code, the signals as they
arrive, and the proof; exit code 1 if a promise is broken, or if a signal is out of order.
"""
COLUMNS_WITHOUT_TERMINAL: Final = 100


@command("demo", DETAILS)
@click.option("--real", is_flag=True, help="Use the delays of the documentation (10 s) instead of short ones.")
@click.option(
    "--folder", type=click.Path(path_type=Path), metavar="FOLDER", help="Keep the queue's file in this folder."
)
@json_option
def demo(real: bool, folder: Path | None, as_json: bool) -> None:
    """Run the demo."""
    if folder is not None and not folder.is_dir():
        raise click.UsageError(f"there is no folder {folder}")
    signal.signal(signal.SIGTERM, _exit)
    if not run_demo(_console(), real=real, folder=folder, as_json=as_json):
        raise Exit(FOUND_WRONG)


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    """End the demo with its consumers."""
    del frame
    sys.exit(128 + number)


def _console() -> Console:
    """Return the console: without a terminal, or with ``NO_COLOR``, the demo is plain text."""
    columns = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else COLUMNS_WITHOUT_TERMINAL
    return Console(width=columns, color_system=None if os.environ.get("NO_COLOR") else "auto")
