"""``lifecycle purge``: delete old tasks that are at rest, before their queue's retention does."""

import sys
from collections.abc import Collection
from typing import Final

import click

from lifecycle.consumer.cli.columns import PAGE_LIMIT
from lifecycle.consumer.cli.options import FoundWrong, command, with_queue
from lifecycle.consumer.cli.output import short_duration, write
from lifecycle.consumer.cli.selection import Duration, state_option
from lifecycle.core.policies import AT_REST, resting_states
from lifecycle.core.task import Task
from lifecycle.queue import TaskQueue

__all__ = ["purge"]

DETAILS: Final = """
Results and histories are deleted with their tasks; waiting and running tasks stay. Without --yes the command asks.
"""


@command("purge", DETAILS)
@with_queue
@click.option("--older-than", type=Duration(), metavar="DURATION", help="Only tasks at rest for so long: 30m, 12h, 7d.")
@state_option("Only tasks at rest in this state; repeatable.")
@click.option("--dry-run", is_flag=True, help="Say how many tasks there are at most, and delete none.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def purge(queue: TaskQueue, older_than: float | None, states: tuple[str, ...], dry_run: bool, yes: bool) -> None:
    """Delete tasks in small steps, and print their number."""
    if older_than is None and not states:
        raise click.UsageError("give --older-than DURATION, as in 7d, or --state STATE, or both")
    among = resting_states(states) or None
    before = queue.engine.clock.now() - (older_than or 0)
    if dry_run or not yes:
        summary = f"at most {_count_before(queue, before, among):,} tasks are at rest"
        if among is not None:
            summary += f" in the state {' or '.join(among)}"
        if older_than is not None:
            summary += f" for longer than {short_duration(older_than)}"
        if dry_run:
            write(f"{summary}; nothing was deleted\n")
            return
        if not sys.stdin.isatty():
            raise click.UsageError(f"{summary}; go on with --yes")
        if not click.confirm(f"{summary}. Delete them?", err=True):
            raise FoundWrong("nothing was deleted")
    deleted_count = 0
    try:
        for step_count in queue.engine.purge(before, among):
            deleted_count += step_count
    finally:
        write(f"{deleted_count:,} task{'s' * (deleted_count != 1)} deleted\n")


def _count_before(queue: TaskQueue, before: float, states: Collection[str] | None) -> int:
    """Return the number of tasks at rest that were enqueued before a moment: some may have come to rest later."""
    count = 0
    last: Task | None = None
    while tasks := queue.tasks(AT_REST if states is None else states, PAGE_LIMIT, last):
        count += sum(task.enqueued_at is None or task.enqueued_at < before for task in tasks)
        last = tasks[-1]
    return count
