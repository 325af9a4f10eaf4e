"""``lifecycle list``: tasks, a line each, printed page by page as the store returns them."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final

import attrs
import click

from lifecycle.consumer.cli.columns import Column, print_columns
from lifecycle.consumer.cli.options import command, json_option, with_queue_to_read
from lifecycle.consumer.cli.output import print_json, short_duration, state_colour
from lifecycle.consumer.cli.selection import Found, Selection, filter_options
from lifecycle.consumer.cli.task_fields import task_fields
from lifecycle.consumer.cli.task_ids import printed_ids
from lifecycle.core.table import LIFECYCLE, Kind
from lifecycle.core.task import Task
from lifecycle.errors import TaskException
from lifecycle.queue import TaskQueue

__all__ = ["list_tasks", "print_tasks"]

DETAILS: Final = """
On a terminal ids are short. Every command takes them so: any beginning or end of an id that only one task has.
"""


@attrs.frozen
class _Line:
    """A task as it is listed."""

    id_text: str
    task: Task
    error: TaskException | None
    now: float
    """UTC seconds."""

    @property
    def waits(self) -> bool:
        """True if the task waits for a worker."""
        return LIFECYCLE.state(str(self.task.state)).kind is Kind.WAITING

    @property
    def attempt_text(self) -> str:
        """The number of the last attempt, and of those that the task can have; empty if it has ended without any."""
        all_count = self.task.attempt + self.task.retries + self.waits
        return f"{self.task.attempt}/{all_count}" if self.task.attempt or self.waits else ""

    @property
    def age_text(self) -> str:
        """The time since the task was enqueued."""
        at = self.task.enqueued_at
        return "" if at is None else short_duration(max(0, int(self.now - at)))

    @property
    def due_text(self) -> str:
        """The time from now until the task is due; empty if it is due, or no longer waits."""
        eta = self.task.eta
        return short_duration(int(eta - self.now)) if self.waits and eta is not None and eta > self.now else ""


COLUMNS: Final[list[Column[_Line]]] = [
    Column("id", lambda line: line.id_text, 10),
    Column("task", lambda line: line.task.name, 8, least_width=18, cut="left"),
    Column("state", lambda line: str(line.task.state), 9, style=lambda line: state_colour(str(line.task.state))),
    Column("attempt", lambda line: line.attempt_text, 4),
    Column("age", lambda line: line.age_text, 6),
    Column("due", lambda line: line.due_text, 5),
    Column("error", lambda line: "" if line.error is None else str(line.error), 7, least_width=14),
]


@command("list", DETAILS)
@with_queue_to_read
@filter_options
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=1),
    metavar="COUNT",
    default=50,
    show_default=True,
    help="At most so many tasks.",
)
@click.option("--full-ids", is_flag=True, help="Print whole ids, on a terminal too.")
@json_option
def list_tasks(queue: TaskQueue, selection: Selection, limit: int, full_ids: bool, as_json: bool) -> None:
    """Print the newest tasks, a line each."""
    pages = selection.pages(queue, limit)
    if as_json:
        print_json([task_fields(found.task, found.error) for page in pages for found in page])
    else:
        print_tasks(queue, pages, full_ids=full_ids)


def print_tasks(queue: TaskQueue, pages: Iterable[Sequence[Found]], *, full_ids: bool = False) -> None:
    """Print tasks, a line each."""
    print_columns(COLUMNS, _lines(queue, pages, printed_ids(queue, full=full_ids)))


def _lines(
    queue: TaskQueue, pages: Iterable[Sequence[Found]], printed: Callable[[Collection[str]], dict[str, str]]
) -> Iterator[list[_Line]]:
    for page in pages:
        texts = printed([found.task.id for found in page])
        now = queue.engine.clock.now()
        yield [_Line(texts[found.task.id], found.task, found.error, now) for found in page]
