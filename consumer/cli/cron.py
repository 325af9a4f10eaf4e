"""``lifecycle cron``: the periodic tasks of a queue, their next ticks and latest tasks; run, pause or resume one."""

from contextlib import closing
from typing import Final

import attrs
import click

from lifecycle.consumer.cli.columns import Column, print_columns
from lifecycle.consumer.cli.options import TEXT, Argument, command, find_queue, json_option, name_option, url_option
from lifecycle.consumer.cli.output import local_time, print_json, short_duration, shown, state_colour, write
from lifecycle.consumer.cli.task_ids import printed_ids
from lifecycle.errors import UnknownTask
from lifecycle.periodic import PeriodicStatus
from lifecycle.queue import TaskQueue

__all__ = ["cron"]

ACTIONS: Final = ("run", "pause", "resume")
DETAILS: Final = """
Without an action: print a line for each periodic task. `run NAME` enqueues its task now, beside its ticks. `pause NAME`
makes no ticks, for all consumers, until `resume NAME`; the ticks of the pause are not made later.

A rule is known to the program alone: with --url the names and times in the store are shown, and no next tick.
"""
OVERDUE_SECONDS: Final = 5.0
"""A tick that nobody has made for so long is shown in red: no consumer runs."""


@attrs.frozen
class _Row:
    """A periodic task, and the state of its latest task."""

    status: PeriodicStatus
    now: float
    last_id: str
    """The latest task's id, as it is printed; ``""``: there is none."""
    last_state: str
    """``""``: there is no such task, or it was pruned."""

    @property
    def next_text(self) -> str:
        """The time until the next tick, or since the tick that nobody has made."""
        if self.status.paused:
            return "paused"
        if self.status.next_at is None:
            return ""
        seconds = self.status.next_at - self.now
        return f"in {short_duration(seconds)}" if seconds >= 0 else f"overdue {short_duration(-seconds)}"

    @property
    def next_style(self) -> str:
        """Red for a tick that is overdue."""
        overdue = self.status.next_at is not None and self.status.next_at < self.now - OVERDUE_SECONDS
        return "red" if overdue else "yellow" if self.status.paused else ""


COLUMNS: Final[list[Column[_Row]]] = [
    Column("name", lambda row: row.status.name, 10, least_width=14, cut="left"),
    Column("schedule", lambda row: row.status.schedule or "", 8, least_width=12),
    Column("next", lambda row: row.next_text, 9, style=lambda row: row.next_style),
    Column("at", lambda row: "" if row.status.next_at is None else local_time(row.status.next_at), 3),
    Column("missed", lambda row: row.status.misfire or "", 2),
    Column("ticked", lambda row: "" if row.status.ticked is None else local_time(row.status.ticked), 4),
    Column("last", lambda row: row.last_state, 7, style=lambda row: row.last_state and state_colour(row.last_state)),
    Column("id", lambda row: row.last_id, 6),
]


@command("cron", DETAILS)
@click.argument(
    "words",
    cls=Argument,
    type=TEXT,
    nargs=-1,
    metavar="[run|pause|resume NAME] [MODULE:QUEUE]",
    about="An action on a periodic task, and the queue, as in tasks:queue.",
)
@url_option
@name_option
@json_option
def cron(words: tuple[str, ...], url: str | None, name: str, as_json: bool) -> None:
    """List periodic tasks, or act on one of them."""
    action = words[0] if words and words[0] in ACTIONS else None
    rest = words[2:] if action is not None else words
    if (action is not None and len(words) == 1) or len(rest) > 1:
        raise click.UsageError(f"write cron [{'|'.join(ACTIONS)} NAME] [MODULE:QUEUE]")
    with closing(find_queue(rest[0] if rest else None, url, name, to_read=action is None)) as queue:
        if action is None:
            _list(queue, as_json=as_json)
        else:
            _act(queue, action, words[1], as_json=as_json)


def _list(queue: TaskQueue, *, as_json: bool) -> None:
    statuses = queue.periodic_tasks()
    ids = [status.last_task for status in statuses if status.last_task is not None]
    texts, now = printed_ids(queue)(ids), queue.engine.clock.now()
    stored = queue.storage.statuses(ids)
    rows = []
    for status in statuses:
        last = status.last_task or ""
        rows.append(_Row(status, now, texts.get(last, ""), stored[last].state if last in stored else ""))
    if as_json:
        print_json([attrs.asdict(row.status) | {"last_state": row.last_state or None} for row in rows])
    else:
        print_columns(COLUMNS, [rows])


def _act(queue: TaskQueue, action: str, name: str, *, as_json: bool) -> None:
    known = {status.name for status in queue.periodic_tasks()}
    ends = [one for one in known if one == name] or [one for one in known if one.endswith(f".{name}")]
    if len(ends) != 1:
        names = ", ".join(sorted(ends or known)) or "none"
        fault = "several periodic tasks have this name" if ends else "no periodic task has this name"
        raise click.UsageError(f"{name!r}: {fault}: {names}")
    (name,) = ends
    if action == "run":
        try:
            result = queue.run_periodic(name)
        except UnknownTask as error:
            raise click.UsageError(str(error)) from None
        if as_json:
            print_json({"id": result.id, "state": result.state})
        else:
            write(f"task {shown(result.id)} is {result.state}: {shown(name)}\n")
        return
    changed = queue.pause_periodic(name) if action == "pause" else queue.resume_periodic(name)
    state = "paused" if action == "pause" else "not paused"
    if as_json:
        print_json({"name": name, "changed": changed, "paused": action == "pause"})
    else:
        write(f"{shown(name)} is {state}{'' if changed else ' already'}\n")
