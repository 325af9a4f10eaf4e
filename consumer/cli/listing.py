"""``lifecycle list``: tasks, a line each, printed page by page as the store returns them."""

from collections.abc import Iterator
from typing import Final

import attrs
import click

from lifecycle.clock import SystemClock
from lifecycle.consumer.cli.columns import PAGE_LIMIT, Column, print_columns
from lifecycle.consumer.cli.options import command, json_option, with_queue_to_read
from lifecycle.consumer.cli.output import print_json, short_duration, state_colour
from lifecycle.consumer.cli.task_fields import task_fields
from lifecycle.core.table import COMPLETED, LIFECYCLE, Kind
from lifecycle.core.task import Task
from lifecycle.errors import TaskException
from lifecycle.queue import TaskQueue

__all__ = ["list_tasks"]


@attrs.frozen
class _Line:
    """A task as it is listed."""

    task: Task
    id_text: str
    error: TaskException | None
    now: float
    """UTC seconds."""

    @property
    def attempt_text(self) -> str:
        """The number of the last attempt, and of those that the task can have; empty if it has ended without any."""
        waits = LIFECYCLE.state(str(self.task.state)).kind is Kind.WAITING
        all_count = self.task.attempt + self.task.retries + waits
        return f"{self.task.attempt}/{all_count}" if self.task.attempt or waits else ""

    @property
    def due_text(self) -> str:
        """The time from now until the task is due; empty if it is due, or no longer waits."""
        eta, waits = self.task.eta, LIFECYCLE.state(str(self.task.state)).kind is Kind.WAITING
        return short_duration(eta - self.now) if waits and eta is not None and eta > self.now else ""


COLUMNS: Final[list[Column[_Line]]] = [
    Column("id", lambda line: line.id_text, 10),
    Column("task", lambda line: line.task.name, 8, cut="left"),
    Column("state", lambda line: str(line.task.state), 9, style=lambda line: state_colour(str(line.task.state))),
    Column("attempt", lambda line: line.attempt_text, 4),
    Column("due", lambda line: line.due_text, 5),
    Column("error", lambda line: "" if line.error is None else str(line.error), 7, cut="right"),
]


@command("list")
@with_queue_to_read
@click.option("-s", "--state", "states", metavar="STATE", multiple=True, help="Only tasks in this state; repeatable.")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=1),
    metavar="COUNT",
    default=50,
    show_default=True,
    help="At most so many tasks.",
)
@json_option
def list_tasks(queue: TaskQueue, states: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Print the newest tasks, a line each."""
    pages = _pages(queue, states, limit)
    if as_json:
        print_json([task_fields(line.task, line.error) for page in pages for line in page])
    else:
        print_columns(COLUMNS, pages)


def _pages(queue: TaskQueue, states: tuple[str, ...], limit: int) -> Iterator[list[_Line]]:
    """Yield the newest tasks, `limit` in all, page by page."""
    last: Task | None = None
    while limit > 0:
        tasks = queue.tasks(states or None, min(limit, PAGE_LIMIT), last)
        if not tasks:
            return
        failed = [task.id for task in tasks if task.attempt and task.state != COMPLETED]
        errors, now = queue.errors(failed), SystemClock.now()
        yield [_Line(task, task.id, errors.get(task.id), now) for task in tasks]
        limit, last = limit - len(tasks), tasks[-1]
