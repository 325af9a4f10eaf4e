"""The commands that read a queue: ``list``, ``show``, ``history`` and ``stats``."""

import click

from lifecycle.consumer.cli.options import command, json_option, task_id_argument, with_queue
from lifecycle.consumer.cli.output import local_time, print_json, print_table
from lifecycle.core.table import LIFECYCLE
from lifecycle.core.task import Record, Task
from lifecycle.queue import TaskQueue

__all__ = ["history", "list_tasks", "show", "stats"]


@command("list")
@with_queue
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
    tasks = queue.tasks(list(states) or None, limit)
    if as_json:
        print_json([_task_fields(task) for task in tasks])
        return
    print_table(
        ["id", "task", "state", "attempt", "retries", "eta"],
        [
            [task.id, task.name, task.state, task.attempt, task.retries, task.eta and local_time(task.eta)]
            for task in tasks
        ],
    )


@command("show")
@task_id_argument
@with_queue
@json_option
def show(queue: TaskQueue, task_id: str, as_json: bool) -> None:
    """Print a task's fields and history."""
    task, records = queue.get(task_id), queue.history(task_id)
    if as_json:
        print_json(_task_fields(task) | {"history": [_record_fields(record) for record in records]})
        return
    print_table([], [list(pair) for pair in _task_fields(task).items()])
    _print_history(records)


@command("history")
@task_id_argument
@with_queue
@json_option
def history(queue: TaskQueue, task_id: str, as_json: bool) -> None:
    """Print a task's history, a line for each state."""
    records = queue.history(task_id)
    if as_json:
        print_json([_record_fields(record) for record in records])
    else:
        _print_history(records)


@command("stats")
@with_queue
@json_option
def stats(queue: TaskQueue, as_json: bool) -> None:
    """Print the number of tasks in each state."""
    counts = queue.counts()
    if as_json:
        print_json(counts)
        return
    print_table(["state", "tasks"], [[state.name, counts[state]] for state in LIFECYCLE.states if state in counts])


def _task_fields(task: Task) -> dict[str, object]:
    return {
        "id": task.id, "name": task.name, "state": task.state, "attempt": task.attempt, "retries": task.retries,
        "priority": task.priority, "eta": task.eta, "expires": task.expires, "worker": task.worker,
        "interruptions": task.interruptions, "canceling": task.canceling,
    }  # fmt: skip


def _record_fields(record: Record) -> dict[str, object]:
    return {"state": record.state, "at": record.at, "worker": record.worker, "attempt": record.attempt}


def _print_history(records: list[Record]) -> None:
    rows: list[list[object]] = [
        [record.state, local_time(record.at), record.attempt, record.worker] for record in records
    ]
    print_table(["state", "at", "attempt", "by"], rows)
