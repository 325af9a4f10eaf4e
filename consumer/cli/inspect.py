"""The commands that look at one task, or count all: ``show``, ``history`` and ``stats``."""

import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Final

import click

from lifecycle.clock import pause
from lifecycle.consumer.cli.columns import Column, print_columns, print_fields
from lifecycle.consumer.cli.options import command, json_option, task_id_argument, with_queue_to_read
from lifecycle.consumer.cli.output import local_time, print_json, print_json_line, short_duration, state_colour, write
from lifecycle.consumer.cli.task_fields import (
    call_fields,
    call_text,
    record_fields,
    result_field,
    result_text,
    task_fields,
    traceback_text,
)
from lifecycle.consumer.cli.task_ids import find_id
from lifecycle.core.table import COMPLETED, LIFECYCLE, Kind
from lifecycle.core.task import Record, Task
from lifecycle.errors import TaskException
from lifecycle.escaping import printable
from lifecycle.queue import TaskQueue

__all__ = ["history", "show", "stats"]

Step = tuple[Record, float | None]
"""A line of a history, with the seconds since the line before."""

HISTORY: Final[list[Column[Step]]] = [
    Column("state", lambda step: _state_text(step[0]), 9, style=lambda step: state_colour(step[0].state)),
    Column("at", lambda step: local_time(step[0].at), 8),
    Column("after", lambda step: "" if step[1] is None else short_duration(step[1]), 7),
    Column("attempt", lambda step: str(step[0].attempt), 6),
    Column("by", lambda step: step[0].worker, 5, least_width=12, cut="left"),
]
Count = tuple[str, int, int]
"""A state, the number of its tasks, and how many more there are than at the last look."""
COUNTS: Final[list[Column[Count]]] = [
    Column("state", lambda line: line[0], 9, style=lambda line: state_colour(line[0]) if line[1] else ""),
    Column("tasks", lambda line: str(line[1]), 8),
]
CHANGE: Final[Column[Count]] = Column("change", lambda line: f"{line[2]:+}" if line[2] else "", 7)
WATCH_INTERVAL_SECONDS: Final = 1.0
CLEAR_SCREEN: Final = "\x1b[H\x1b[2J"


@command("show")
@task_id_argument
@with_queue_to_read
@json_option
def show(queue: TaskQueue, task_id: str, as_json: bool) -> None:
    """Print a task's call, outcome, fields and history."""
    task_id = find_id(queue, task_id)
    task, records = queue.get(task_id), queue.history(task_id)
    error = queue.errors([task.id]).get(task.id)
    if as_json:
        fields = task_fields(task, error) | call_fields(task) | {"result": result_field(queue, task)}
        fields["traceback"] = None if error is None else error.traceback
        print_json(fields | {"history": [record_fields(record) for record in records]})
        return
    print_fields(list(_fields(queue, task, records, error)))
    traceback = "" if error is None else traceback_text(error)
    write(f"\n{traceback}\n" if traceback else "\n")
    _print_history(records)


def _fields(
    queue: TaskQueue, task: Task, records: list[Record], error: TaskException | None
) -> Iterator[tuple[str, str, str]]:
    """Yield the fields of a task that say something: name, text and colour."""
    state = LIFECYCLE.state(str(task.state))
    yield "id", task.id, ""
    yield "call", call_text(task), ""
    yield "state", f"{state.name}{', to be canceled' * task.canceling}", state_colour(state.name)
    if task.state == COMPLETED:
        yield "result", result_text(queue, task), ""
    if error is not None:
        yield "error", str(error), state_colour(error.state)
    left = f"{task.retries} {'retry' if task.retries == 1 else 'retries'} left"
    interrupted = f", {task.interruptions} interrupted" * bool(task.interruptions)
    yield "attempts", f"{task.attempt}{interrupted}, {left}", ""
    if task.enqueued_at is not None:
        age = short_duration(queue.engine.clock.now() - task.enqueued_at)
        yield "enqueued", f"{local_time(task.enqueued_at)} ({age} ago)", ""
    if (last := _last_attempt(records)) is not None:
        yield "took", f"{short_duration(last[1])} (attempt {last[0]})", ""
    if state.kind is Kind.RUNNING and records:
        yield "runs for", f"{short_duration(queue.engine.clock.now() - records[-1].at)} (attempt {task.attempt})", ""
    if state.kind in (Kind.WAITING, Kind.RUNNING):
        moments = ("due", task.eta), ("expires", task.expires), ("lease until", task.lease)
        yield from ((name, local_time(moment), "") for name, moment in moments if moment is not None)
    if task.priority:
        yield "priority", str(task.priority), ""
    if task.timeout is not None:
        yield "timeout", short_duration(task.timeout), ""
    yield "worker", task.worker or "", ""


def _last_attempt(records: list[Record]) -> tuple[int, float] | None:
    """Return the number of the last attempt that has ended, and its seconds; ``None``: none has ended."""
    ended = [
        (before.attempt, after.at - before.at)
        for before, after in pairwise(records)
        if LIFECYCLE.state(before.state).kind is Kind.RUNNING and not after.left_out
    ]
    return ended[-1] if ended else None


@command("history")
@task_id_argument
@with_queue_to_read
@json_option
def history(queue: TaskQueue, task_id: str, as_json: bool) -> None:
    """Print a task's history, a line for each state."""
    records = queue.history(find_id(queue, task_id))
    if as_json:
        print_json([record_fields(record) for record in records])
    else:
        _print_history(records)


@command("stats")
@with_queue_to_read
@click.option("--watch", is_flag=True, help="Count again each second, and show the changes, until Ctrl-C.")
@json_option
def stats(queue: TaskQueue, watch: bool, as_json: bool) -> None:
    """Print the number of tasks in each state."""
    counts = queue.counts()
    if not watch:
        _print_counts(counts, counts, as_json=as_json)
        if not as_json and queue.engine.functions:  # named by its program, not by a URL
            for name, count in queue.unknown_functions().items():
                write(f"{count} tasks wait for a consumer that knows {printable(name)}, which this program does not\n")
        return
    with suppress(KeyboardInterrupt):  # the usual end
        before = counts
        while True:
            if sys.stdout.isatty():
                write(CLEAR_SCREEN)
            _print_counts(counts, before, as_json=as_json, watched=True)
            sys.stdout.flush()
            pause(WATCH_INTERVAL_SECONDS)
            before, counts = counts, queue.counts()


def _print_counts(counts: dict[str, int], before: dict[str, int], *, as_json: bool, watched: bool = False) -> None:
    """Print the numbers and, if `watched`, their changes since `before`; then JSON is one line."""
    if as_json:
        (print_json_line if watched else print_json)(counts)
        return
    lines = [(name, count, count - before[name]) for name, count in counts.items()]
    print_columns(COUNTS if not watched else [*COUNTS, CHANGE], [lines])


def _state_text(record: Record) -> str:
    return f"({record.left_out:,} left out) {record.state}" if record.left_out else record.state


def _print_history(records: list[Record]) -> None:
    steps: list[Step] = [
        (after, None if after.left_out else after.at - before.at) for before, after in pairwise(records)
    ]
    print_columns(HISTORY, [[*((record, None) for record in records[:1]), *steps]])
