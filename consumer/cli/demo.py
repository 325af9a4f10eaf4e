"""``lifecycle demo``: every scenario of the lifecycle, run by real consumers."""

from pathlib import Path

import click
from click.exceptions import Exit

from lifecycle.consumer.cli.options import FOUND_WRONG, command, json_option
from lifecycle.consumer.cli.output import console
from lifecycle.consumer.demo.demo import run_demo

__all__ = ["demo"]

DETAILS = """
Some consumers are killed or frozen on the way. Each task's signals are printed as they arrive, and compared with the
table; exit code 1 if a signal is out of order.
"""


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
    if not run_demo(console(), real=real, folder=folder, as_json=as_json):
        raise Exit(FOUND_WRONG)
