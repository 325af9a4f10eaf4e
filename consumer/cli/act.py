"""The commands that change tasks: ``retry``, ``cancel`` and ``revoke``, for one task or for all that filters select."""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Final

import attrs
import click

from lifecycle.consumer.cli.listing import print_tasks
from lifecycle.consumer.cli.options import (
    TEXT,
    Argument,
    Command,
    FoundWrong,
    command,
    find_queue,
    name_option,
    target_argument,
    url_option,
)
from lifecycle.consumer.cli.output import shown, write
from lifecycle.consumer.cli.selection import Found, Selection, filter_options
from lifecycle.consumer.cli.task_ids import find_id
from lifecycle.core.machine import IllegalTransition
from lifecycle.core.table import LIFECYCLE, Kind
from lifecycle.errors import ConfigurationError, UnknownTask
from lifecycle.queue import TaskQueue

__all__ = ["cancel", "retry", "revoke"]

DETAILS: Final = """
Name one task by its id, or select tasks by filters: without --yes the command asks before it changes them.
"""


@attrs.frozen
class _Verb:
    """An action on tasks."""

    name: str
    act: Callable[[TaskQueue, str], object]
    """Change the task of an id. Raises `IllegalTransition` if its state does not allow that."""
    states: tuple[str, ...]
    """States in which filters select tasks."""
    done: str
    """The end of a sentence that begins with one task: ``task 4711 …``."""
    all_done: str
    """The end of a sentence that begins with several tasks."""


def _states(*kinds: Kind) -> tuple[str, ...]:
    return tuple(state.name for state in LIFECYCLE.states if state.kind in kinds)


RETRY: Final = _Verb("retry", TaskQueue.retry, _states(Kind.OUTCOME), "is queued again", "are queued again")
CANCEL: Final = _Verb(
    "cancel", TaskQueue.cancel, _states(Kind.WAITING, Kind.RUNNING), "is to be canceled", "are to be canceled"
)
REVOKE: Final = _Verb(
    "revoke", TaskQueue.revoke_by_id, _states(Kind.WAITING, Kind.RUNNING), "will not run again", "will not run again"
)


def _command(verb: _Verb) -> Command:
    """Return the command of a verb."""

    @command(verb.name, DETAILS)
    @click.argument("task_id", cls=Argument, type=TEXT, metavar="[ID]", required=False, about="The task's id.")
    @target_argument
    @url_option
    @name_option
    @filter_options
    @click.option("--dry-run", is_flag=True, help="With filters: list the tasks, and change none.")
    @click.option("-y", "--yes", is_flag=True, help="With filters: do not ask.")
    def run(
        task_id: str | None,
        target: str | None,
        url: str | None,
        name: str,
        selection: Selection,
        dry_run: bool,
        yes: bool,
    ) -> None:
        if not selection.is_empty:
            if target is not None:
                raise click.UsageError(f"give the id {task_id}, or filters, not both")
            with closing(find_queue(task_id, url, name, to_read=dry_run)) as queue:  # the only argument is the queue
                _act_on_all(queue, verb, _restricted(selection, verb), dry_run=dry_run, yes=yes)
        elif task_id is None:
            raise click.UsageError("name a task by its ID, or select tasks by filters, as in --state STATE --since 1h")
        elif dry_run:
            raise click.UsageError("--dry-run needs filters: lifecycle show ID shows one task")
        else:
            with closing(find_queue(target, url, name)) as queue:
                _act_on_one(queue, verb, task_id)

    return run


retry: Final = _command(RETRY)
cancel: Final = _command(CANCEL)
revoke: Final = _command(REVOKE)


def _act_on_one(queue: TaskQueue, verb: _Verb, text: str) -> None:
    task_id = find_id(queue, text)
    try:
        verb.act(queue, task_id)
    except IllegalTransition as error:
        raise FoundWrong(str(error)) from None
    write(f"task {shown(task_id)} {verb.done}\n")


def _restricted(selection: Selection, verb: _Verb) -> Selection:
    """Return the selection within the states of a verb. Raises `ConfigurationError` for any other state."""
    for state in selection.states:
        if LIFECYCLE.state(state).name not in verb.states:
            raise ConfigurationError(f"cannot {verb.name} tasks in {state}: there are {', '.join(verb.states)}")
    return attrs.evolve(selection, states=selection.states or verb.states)


def _act_on_all(queue: TaskQueue, verb: _Verb, selection: Selection, *, dry_run: bool, yes: bool) -> None:
    """Act on each selected task, in a step of its own: a command that is interrupted has done a part."""
    if dry_run:
        tally = Counter[tuple[str, str]]()
        print_tasks(queue, _counted(selection.pages(queue), tally))
        click.echo(f"{verb.name}: {_sum_of(tally)}; nothing was changed", err=True)
        return
    # All are found first: a retried task may fail again at once.
    selected = [
        (found.task.id, found.task.name, str(found.task.state)) for page in selection.pages(queue) for found in page
    ]
    if not selected:
        raise FoundWrong(f"{verb.name}: no task passes the filters")
    summary = f"{verb.name}: {_sum_of(Counter((name, state) for _, name, state in selected))}"
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(f"{summary}; look with --dry-run, or go on with --yes")
        if not click.confirm(f"{summary}. Go on?", err=True):
            raise FoundWrong("nothing was changed")
    done_count = refused_count = 0
    try:
        with _progress([task_id for task_id, _, _ in selected], verb.name) as task_ids:
            for task_id in task_ids:
                try:
                    verb.act(queue, task_id)
                    done_count += 1
                except (IllegalTransition, UnknownTask):  # another process was faster
                    refused_count += 1
    finally:
        left = f", {refused_count:,} had changed meanwhile" * bool(refused_count)
        write(f"{_tasks(done_count)} {verb.done if done_count == 1 else verb.all_done}{left}\n")


def _counted(pages: Iterator[list[Found]], tally: Counter[tuple[str, str]]) -> Iterator[list[Found]]:
    for page in pages:
        tally.update((found.task.name, str(found.task.state)) for found in page)
        yield page


def _sum_of(tally: Counter[tuple[str, str]]) -> str:
    """Return the number of tasks, in all and by function and state."""
    parts = ", ".join(f"{count:,} {shown(name)} in {state}" for (name, state), count in tally.most_common())
    return _tasks(tally.total()) + (f" ({parts})" if parts else "")


def _tasks(count: int) -> str:
    return f"{count:,} task{'s' * (count != 1)}"


@contextmanager
def _progress(task_ids: Sequence[str], label: str) -> Iterator[Iterable[str]]:
    """Show on a terminal how many tasks are done."""
    if sys.stderr.isatty():
        with click.progressbar(task_ids, label=label, file=sys.stderr) as bar:
            yield bar
    else:
        yield task_ids
