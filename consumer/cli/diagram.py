"""``lifecycle diagram``: pictures of tables, of recorded scenarios, and of the path of one task."""

from contextlib import closing
from pathlib import Path
from typing import Final

import click

from lifecycle.consumer.cli.options import Argument, command, find_queue, name_option
from lifecycle.consumer.cli.output import write
from lifecycle.consumer.cli.task_ids import find_id
from lifecycle.consumer.demo.gallery import FORMATS, PICTURES, Picture, draw
from lifecycle.consumer.loading import load_table
from lifecycle.core.table import LIFECYCLE
from lifecycle.diagrams import graph, route, workflow
from lifecycle.diagrams.workflow import collect
from lifecycle.errors import ConfigurationError, UnknownTask

__all__ = ["diagram"]

DEFAULT: Final = next(iter(PICTURES))
DETAILS: Final = """
With the id of a task: the states that it entered, each step numbered, with the seconds since the task was created; the
other states are dim. With --table: a table of your own. With --workflow: the tasks of a pipeline, group or chord, each
with its state, found from any of its tasks; give the option several times for tasks that do not wait for one another.
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
    "-f",
    "--format",
    metavar="FORMAT",
    help=f"{' or '.join(FORMATS)}; default: the ending of the file's name, else {FORMATS[0]}.",
)
@click.option("--workflow", "workflow_ids", metavar="ID", multiple=True, help="Draw the workflow of a task.")
@click.option("--table", metavar="MODULE:TABLE", help="Draw a Lifecycle of your own.")
@click.option("--url", metavar="URL", help="With an ID: the store; default: $LIFECYCLE_URL.")
@name_option
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write the picture into a file.")
@click.option("--list", "names_only", is_flag=True, help="Print the names of the pictures instead.")
def diagram(
    subject: str,
    target: str | None,
    format: str | None,  # noqa: A002 -- the option's name
    workflow_ids: tuple[str, ...],
    table: str | None,
    url: str | None,
    name: str,
    output: Path | None,
    names_only: bool,
) -> None:
    """Print a picture, write it into a file, or print the names of all."""
    if names_only:
        write("".join(f"{picture}\n" for picture in PICTURES))
        return
    if table is not None and subject != DEFAULT:
        raise click.UsageError(f"give --table or {subject}, not both")
    picture: Picture
    if workflow_ids:
        if table is not None or target is not None:
            raise click.UsageError(f"give --workflow or {'--table' if table is not None else subject}, not both")
        picture = _workflow(workflow_ids, None if subject == DEFAULT else subject, url, name)
    elif table is not None:
        picture = graph(load_table(table), table)
    else:
        picture = _picture(subject, target, url, name)
    text = draw(picture, format or _format_of(output))
    if output is None:
        write(text)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{output} cannot be written: {error.strerror}") from None


def _format_of(path: Path | None) -> str:
    """Return the format that the ending of a file's name says."""
    if path is None:
        return FORMATS[0]
    ending = path.suffix.removeprefix(".")
    return next((name for name in FORMATS if ending and name.startswith(ending)), ending or FORMATS[0])


def _workflow(texts: tuple[str, ...], target: str | None, url: str | None, name: str) -> Picture:
    """Return the picture of the workflows that the tasks with these ids belong to."""
    with closing(find_queue(target, url, name, to_read=True)) as queue:
        ids = [find_id(queue, text) for text in texts]
        return workflow(f"Workflow of {', '.join(ids)}", collect(ids, queue.storage.get))


def _picture(subject: str, target: str | None, url: str | None, name: str) -> Picture:
    """Return the picture of that name, or of the task with that id."""
    if subject in PICTURES:
        return PICTURES[subject]()
    try:
        with closing(find_queue(target, url, name, to_read=True)) as queue:
            task_id = find_id(queue, subject)
            task, records = queue.get(task_id), queue.history(task_id)
    except UnknownTask as error:
        raise UnknownTask(f"{subject!r} is no picture (lifecycle diagram --list), and there is {error}") from None
    except click.UsageError as error:
        raise click.UsageError(f"{subject!r} is no picture (lifecycle diagram --list), and {error}") from None
    return route(LIFECYCLE, f"{task.name}: {task.id}", records)
