"""The command line. A mistake of its user gets one line and exit code 2, never a traceback."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, cast
from urllib.parse import unquote, urlsplit

import msgspec
import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup
from typer.main import get_command

from lifecycle.consumer.consumer import Consumer
from lifecycle.consumer.loading import load_queue
from lifecycle.consumer.os_signals import give_back, take
from lifecycle.consumer.workers.types import GREENLET, WORKER_TYPES
from lifecycle.core.machine import IllegalTransition
from lifecycle.core.table import LIFECYCLE
from lifecycle.core.task import Record, Task
from lifecycle.errors import LifecycleError
from lifecycle.queue import DEFAULT_URL, URL_VARIABLE, TaskQueue

__all__ = ["main"]

FOUND_WRONG: Final = 1
BAD_USAGE: Final = 2
INTERRUPTED: Final = 130
# The class of all that is wrong with a command line; typer exports only some of its children.
_UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__bases__[0])


class _Commands(TyperGroup):
    """Those declared here; and others, imported when one is needed: a consumer's start need not wait for them."""

    def list_commands(self, ctx: Any) -> list[str]:
        self._complete()
        return super().list_commands(ctx)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.commands:
            self._complete()
        return super().get_command(ctx, cmd_name)

    def _complete(self) -> None:
        from lifecycle.consumer.cli.diagram import diagram
        from lifecycle.consumer.cli.law import check, verify
        from lifecycle.consumer.cli.migrate import migrate

        others = typer.Typer(add_completion=False)
        for command in verify, check, migrate, diagram(_queue):
            others.command()(command)
        self.commands.update(cast("TyperGroup", get_command(others)).commands)


app = typer.Typer(
    name="lifecycle",
    cls=_Commands,
    help="A task queue whose every task is an explicit finite-state machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# What goes to a file or a program is not folded to the width of a terminal that nobody looks at.
out = Console() if sys.stdout.isatty() else Console(width=10_000)
err = Console(stderr=True)

Target = Annotated[str | None, typer.Argument(metavar="[MODULE:QUEUE]", help="The queue, as in tasks:queue.")]
Url = Annotated[str | None, typer.Option("--url", help="The store instead of a queue; default: $LIFECYCLE_URL.")]
Name = Annotated[str, typer.Option("--name", help="With --url: the queue's name in the store.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
TaskId = Annotated[str, typer.Argument(metavar="ID", help="The task's id.")]


@app.command()
def run(
    target: Annotated[str, typer.Argument(metavar="MODULE:QUEUE", help="The queue, as in tasks:queue.")],
    workers: Annotated[int, typer.Option("--workers", "-w", min=1, help="How many tasks run at once.")] = 1,
    kind: Annotated[str, typer.Option("--worker-type", "-k", help=" or ".join(WORKER_TYPES) + ".")] = WORKER_TYPES[0],
    grace: Annotated[float, typer.Option(min=0, help="Seconds that interrupted tasks have to clean up.")] = 2.0,
    start: Annotated[str, typer.Option(help="How worker processes begin: spawn or fork.")] = "spawn",
    max_tasks: Annotated[
        int | None, typer.Option(min=1, help="After so many tasks, go on in a new process: of each worker, or of all.")
    ] = None,
    max_memory: Annotated[
        int | None, typer.Option(min=1, help="The same, once it uses so many megabytes (MiB).")
    ] = None,
    ready_file: Annotated[Path | None, typer.Option(help="A file that is there while it is ready.")] = None,
    health: Annotated[
        str | None, typer.Option(metavar="[HOST:]PORT", help="Answer /ready and /live there, over HTTP.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log everything.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Log warnings and errors only.")] = False,
) -> None:
    """Run a consumer: its workers run the queue's tasks until it is stopped.

    SIGINT (Ctrl-C) finishes what runs, SIGTERM interrupts it and puts it back; a second signal means now. SIGHUP
    finishes what runs, and starts anew, with the code that is there then.
    """
    if kind == GREENLET:
        from lifecycle.consumer.workers.gevent_ import restart_patched

        restart_patched()
    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    handler: logging.Handler = RichHandler(console=err, show_path=False, rich_tracebacks=False)
    if not err.is_terminal:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
    consumer = Consumer(
        load_queue(target),
        workers,
        kind,
        grace=grace,
        start_method=start,
        max_tasks=max_tasks,
        max_memory=None if max_memory is None else max_memory * 2**20,
        ready_file=ready_file,
        health=health,
    )
    # From the last moment of a run to the exec it must not do what it does by default: end the process.
    take([signal.SIGHUP], lambda *_: None, {signal.SIGHUP: signal.getsignal(signal.SIGHUP)})
    try:
        if consumer.run():
            # One more that comes from here on is not lost either: it waits, across the exec, until somebody heeds it.
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 -- the command as it was given
    finally:
        give_back([signal.SIGHUP])
    _leave(grace)


def _leave(grace: float) -> None:
    """See to it that the process ends: Python waits for threads that bodies have left behind, were it for ever."""

    def leave() -> None:
        logging.getLogger("lifecycle.consumer").warning("it ends without threads that tasks have left running")
        logging.shutdown()
        os._exit(0)

    last = threading.Timer(max(grace, 1.0), leave)  # with no grace, too, what is done at an exit has its time
    last.daemon = True  # if there are no such threads it comes to nothing
    last.start()


@app.command()
def demo(
    real: Annotated[
        bool, typer.Option("--real", help="The delays of the documentation (10 s) instead of short ones.")
    ] = False,
    folder: Annotated[Path | None, typer.Option(help="Keep the queue's file in this folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Watch real tasks go through every scenario of the lifecycle, in consumers of their own, on a fresh SQLite file.

    Some consumers are killed or frozen on the way. Each task's signals are printed as they arrive, and held against the
    table; exit code 1 if one is out of order.
    """
    if folder is not None and not folder.is_dir():
        raise typer.BadParameter(f"there is no folder {folder}")
    from lifecycle.consumer.demo.demo import run_demo

    if not run_demo(out, real=real, folder=folder, as_json=as_json):
        raise typer.Exit(FOUND_WRONG)


@app.command("list")
def list_tasks(
    target: Target = None,
    url: Url = None,
    name: Name = "default",
    state: Annotated[
        list[str] | None, typer.Option("--state", "-s", help="Only tasks in this state; may be repeated.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at the most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List tasks, the newest first."""
    tasks = _queue(target, url, name).tasks(state or None, limit)
    if as_json:
        _print_json([_fields(task) for task in tasks])
        return
    _print_table(
        ["id", "task", "state", "attempt", "retries", "eta"],
        [[task.id, task.name, task.state, task.attempt, task.retries, task.eta and _time(task.eta)] for task in tasks],
    )


@app.command()
def show(
    task_id: TaskId, target: Target = None, url: Url = None, name: Name = "default", as_json: AsJson = False
) -> None:
    """Show a task: its fields and its history."""
    queue = _queue(target, url, name)
    task, records = queue.get(task_id), queue.history(task_id)
    if as_json:
        _print_json(_fields(task) | {"history": [_record(record) for record in records]})
        return
    _print_table([], [list(pair) for pair in _fields(task).items()])
    _print_history(records)


@app.command()
def history(
    task_id: TaskId, target: Target = None, url: Url = None, name: Name = "default", as_json: AsJson = False
) -> None:
    """Show the states that a task entered, and when."""
    records = _queue(target, url, name).history(task_id)
    if as_json:
        _print_json([_record(record) for record in records])
    else:
        _print_history(records)


@app.command()
def stats(target: Target = None, url: Url = None, name: Name = "default", as_json: AsJson = False) -> None:
    """Count the tasks in each state."""
    counts = _queue(target, url, name).counts()
    if as_json:
        _print_json(counts)
        return
    _print_table(["state", "tasks"], [[state.name, counts[state]] for state in LIFECYCLE.states if state in counts])


@app.command()
def retry(task_id: TaskId, target: Target = None, url: Url = None, name: Name = "default") -> None:
    """Run a task that rests in an outcome (error, timeout, …) once more."""
    _queue(target, url, name).retry(task_id)
    out.print(f"task {task_id} is queued again", markup=False, highlight=False, soft_wrap=True)


@app.command()
def cancel(task_id: TaskId, target: Target = None, url: Url = None, name: Name = "default") -> None:
    """Call off a task that waits, or that runs at this moment."""
    _queue(target, url, name).cancel(task_id)
    out.print(f"task {task_id} is called off", markup=False, highlight=False, soft_wrap=True)


@app.command()
def revoke(task_id: TaskId, target: Target = None, url: Url = None, name: Name = "default") -> None:
    """Do not run a task (again)."""
    queue = _queue(target, url, name)
    queue.get(task_id)  # an id that is not there is more likely mistyped than meant for later
    queue.revoke_by_id(task_id)
    out.print(f"task {task_id} will not run again", markup=False, highlight=False, soft_wrap=True)


def _queue(target: str | None, url: str | None, name: str) -> TaskQueue:
    """The queue that the command is about."""
    if target is not None and url is not None:
        raise typer.BadParameter("give a queue (tasks:queue) or --url, not both")
    if target is not None:
        return load_queue(target)
    url = url or os.environ.get(URL_VARIABLE) or DEFAULT_URL
    if url.startswith("sqlite:"):
        path = Path(unquote(urlsplit(url).path.removeprefix("/")))
        if not path.exists():  # to look at a queue is no reason to make one
            raise typer.BadParameter(f"there is no file {path}")
    return TaskQueue(url, name=name)


def _fields(task: Task) -> dict[str, object]:
    return {
        "id": task.id, "name": task.name, "state": task.state, "attempt": task.attempt, "retries": task.retries,
        "priority": task.priority, "eta": task.eta, "expires": task.expires, "worker": task.worker,
        "interruptions": task.interruptions, "canceling": task.canceling,
    }  # fmt: skip


def _record(record: Record) -> dict[str, object]:
    return {"state": record.state, "at": record.at, "worker": record.worker, "attempt": record.attempt}


def _print_json(value: object) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def _print_history(records: list[Record]) -> None:
    rows = [[record.state, _time(record.at), record.attempt, record.worker] for record in records]
    _print_table(["state", "at", "attempt", "by"], rows)


def _print_table(head: list[str], rows: list[list[object]]) -> None:
    table = Table(*head, box=None, show_header=bool(head), header_style="bold")
    for row in rows:
        # Text, since a string would be read as markup.
        table.add_row(*[Text("" if value is None else str(value)) for value in row])
    out.print(table)


def _time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).astimezone().isoformat(sep=" ", timespec="milliseconds")


def main(command: Callable[..., object] = app) -> None:
    """The entry point: runs the command line, and turns what is the user's to mend into one line and an exit code."""
    try:
        code = command(standalone_mode=False)
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
            raise SystemExit(BAD_USAGE) from None
        _fail(error.format_message(), BAD_USAGE)
    except IllegalTransition as error:
        _fail(str(error), FOUND_WRONG)
    except LifecycleError as error:
        _fail(str(error), BAD_USAGE)
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED)
    if code == INTERRUPTED:  # typer has caught the interrupt, and says nothing
        _fail("interrupted", INTERRUPTED)
    raise SystemExit(code)


def _fail(message: str, code: int) -> None:
    err.print(Text.assemble(("error:", "bold red"), " ", " ".join(message.split())), soft_wrap=True)
    raise SystemExit(code)
