"""``lifecycle diagram``: pictures of tables, of recorded scenarios, and of the way that one task took."""

import sys
from collections.abc import Callable
from contextlib import closing
from typing import Annotated, Final

import typer

from lifecycle.consumer.demo.gallery import FORMATS, PICTURES, Picture, draw
from lifecycle.consumer.loading import load_table
from lifecycle.core.table import LIFECYCLE
from lifecycle.diagrams import graph, route
from lifecycle.errors import UnknownTask
from lifecycle.queue import TaskQueue

__all__ = ["diagram"]

DEFAULT: Final = next(iter(PICTURES))

What = Annotated[str, typer.Argument(metavar="[NAME|ID]", help="A picture's name, or a task's id.")]
RevocationTarget = Annotated[str | None, typer.Argument(metavar="[MODULE:QUEUE]", help="With an ID: the task's queue.")]
Format = Annotated[str, typer.Option("--format", "-f", help=" or ".join(FORMATS) + ".")]
Table = Annotated[str | None, typer.Option("--table", metavar="MODULE:TABLE", help="Draw a Lifecycle of your own.")]
Url = Annotated[str | None, typer.Option("--url", help="With an ID: the store; default: $LIFECYCLE_URL.")]
Name = Annotated[str, typer.Option("--name", help="With --url: the queue's name in the store.")]
All = Annotated[bool, typer.Option("--list", help="Print the names of the pictures instead.")]

Find = Callable[[str | None, str | None, str], TaskQueue]


def diagram(find: Find) -> Callable[..., None]:
    """The command; `find` says which queue is meant by target, URL and name."""

    def diagram(
        what: What = DEFAULT,
        target: RevocationTarget = None,
        form: Format = FORMATS[0],
        table: Table = None,
        url: Url = None,
        name: Name = "default",
        every: All = False,
    ) -> None:
        """Draw the lifecycle, a scenario as it was recorded in a run, or the way that one task took.

        With the id of a task: where it has been, each step numbered, with the seconds since it was created; the rest is
        dim. With --table: a table of your own.
        """
        if every:
            sys.stdout.write("".join(f"{one}\n" for one in PICTURES))
            return
        sys.stdout.write(draw(_picture(what, table, lambda: find(target, url, name)), form))

    return diagram


def _picture(what: str, table: str | None, find: Callable[[], TaskQueue]) -> Picture:
    if table is not None:
        if what != DEFAULT:
            raise typer.BadParameter(f"give --table or {what}, not both")
        return graph(load_table(table), table)
    if what in PICTURES:
        return PICTURES[what]()
    try:
        with closing(find()) as queue:
            task, records = queue.get(what), queue.history(what)
    except UnknownTask as error:
        raise UnknownTask(f"{what!r} is no picture (lifecycle diagram --list), and there is {error}") from None
    except typer.BadParameter as error:
        raise typer.BadParameter(f"{what!r} is no picture (lifecycle diagram --list), and {error}") from None
    return route(LIFECYCLE, f"{task.name}: {task.id}", records)
