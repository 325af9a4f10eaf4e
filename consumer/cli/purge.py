"""``lifecycle purge``: delete old tasks that are at rest, before their queue's retention does."""

import sys
from typing import Final

import click

from lifecycle.consumer.cli.columns import PAGE_LIMIT
from lifecycle.consumer.cli.options import FoundWrong, command, with_queue
from lifecycle.consumer.cli.output import short_duration, write
from lifecycle.consumer.cli.selection import Duration
from lifecycle.core.policies import AT_REST
from lifecycle.core.task import Task
from lifecycle.queue import TaskQueue

__all__ = ["purge"]

DETAILS: Final = """
Results and histories are deleted with their tasks; waiting and running tasks stay. Without --yes the command asks.
"""
STEP_LIMIT: Final = 1000
"""Tasks that are deleted in one transaction."""


@command("purge", DETAILS)
@with_queue
@click.option(
    "--older-than",
    type=Duration(),
    metavar="DURATION",
    required=True,
    help="Only tasks at rest for so long: 30m, 12h, 7d.  [required]",
)
@click.option("--dry-run", is_flag=True, help="Say how many tasks there are at most, and delete none.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def purge(queue: TaskQueue, older_than: float, dry_run: bool, yes: bool) -> None:
    """Delete tasks in small steps, and print their number."""
    before = queue.engine.clock.now() - older_than
    if dry_run or not yes:
        summary = (
            f"at most {_count_before(queue, before):,} tasks are at rest for longer than {short_duration(older_than)}"
        )
        if dry_run:
            write(f"{summary}; nothing was deleted\n")
            return
        if not sys.stdin.isatty():
            raise click.UsageError(f"{summary}; go on with --yes")
        if not click.confirm(f"{summary}. Delete them?", err=True):
            raise FoundWrong("nothing was deleted")
    deleted_count = 0
    try:
        while step_count := queue.storage.prune(before, STEP_LIMIT):
            deleted_count += step_count
    finally:
        write(f"{deleted_count:,} task{'s' * (deleted_count != 1)} deleted\n")


def _count_before(queue: TaskQueue, before: float) -> int:
    """Return the number of tasks at rest that were enqueued before a moment: some may have come to rest later."""
    count = 0
    last: Task | None = None
    while tasks := queue.tasks(AT_REST, PAGE_LIMIT, last):
        count += sum(task.enqueued_at is None or task.enqueued_at < before for task in tasks)
        last = tasks[-1]
    return count
