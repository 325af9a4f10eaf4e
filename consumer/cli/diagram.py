"""``lifecycle diagram``: pictures of tables, of recorded scenarios, and of the path of one task."""

import sys
from contextlib import closing
from typing import Final

import click

from lifecycle.consumer.cli.options import Argument, command, find_queue, name_option
from lifecycle.consumer.demo.gallery import FORMATS, PICTURES, Picture, draw
from lifecycle.consumer.loading import load_table
from lifecycle.core.table import LIFECYCLE
from lifecycle.diagrams import graph, route
from lifecycle.errors import UnknownTask

__all__ = ["diagram"]

DEFAULT: Final = next(iter(PICTURES))
DETAILS: Final = """
With the id of a task: the states that it entered, each step numbered, with the seconds since the task was created; the
other states are dim. With --table: a table of your own.
"""


@command("diagram", DETAILS)
@click.argument(
    "subject",
    cls=Argument,
    metavar="[NAME|ID]",
    required=False,
    default=DEFAULT,
    about="A picture's name, or a task's id.",
)
@click.argument("target", cls=Argument, metavar="[MODULE:QUEUE]", required=False, about="With an ID: the task's queue.")
@click.option(
    "-f", "--format", metavar="FORMAT", default=FORMATS[0], show_default=True, help=f"{' or '.join(FORMATS)}."
)
@click.option("--table", metavar="MODULE:TABLE", help="Draw a Lifecycle of your own.")
@click.option("--url", metavar="URL", help="With an ID: the store; default: $LIFECYCLE_URL.")
@name_option
@click.option("--list", "names_only", is_flag=True, help="Print the names of the pictures instead.")
def diagram(
    subject: str,
    target: str | None,
    format: str,  # noqa: A002 -- the option's name
    table: str | None,
    url: str | None,
    name: str,
    names_only: bool,
) -> None:
    """Print a picture, or the names of all."""
    if names_only:
        sys.stdout.write("".join(f"{picture}\n" for picture in PICTURES))
    elif table is None:
        sys.stdout.write(draw(_picture(subject, target, url, name), format))
    elif subject == DEFAULT:
        sys.stdout.write(draw(graph(load_table(table), table), format))
    else:
        raise click.UsageError(f"give --table or {subject}, not both")


def _picture(subject: str, target: str | None, url: str | None, name: str) -> Picture:
    """Return the picture of that name, or of the task with that id."""
    if subject in PICTURES:
        return PICTURES[subject]()
    try:
        with closing(find_queue(target, url, name)) as queue:
            task, records = queue.get(subject), queue.history(subject)
    except UnknownTask as error:
        raise UnknownTask(f"{subject!r} is no picture (lifecycle diagram --list), and there is {error}") from None
    except click.UsageError as error:
        raise click.UsageError(f"{subject!r} is no picture (lifecycle diagram --list), and {error}") from None
    return route(LIFECYCLE, f"{task.name}: {task.id}", records)
