"""Shared by the commands: their class, the common options, and the search for the named queue or table.

This module is imported for ``lifecycle --help``, so it imports little.
"""

import functools
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

import click

from lifecycle.errors import ConfigurationError, FaultyTable

if TYPE_CHECKING:
    from lifecycle.core.table import Lifecycle
    from lifecycle.queue import TaskQueue

__all__ = [
    "COMPLETION_VARIABLE",
    "FOUND_WRONG",
    "SUMMARIES",
    "TEXT",
    "Argument",
    "Command",
    "FoundWrong",
    "command",
    "find_queue",
    "find_table",
    "json_option",
    "name_option",
    "target_argument",
    "task_id_argument",
    "url_option",
    "with_queue",
    "with_queue_to_read",
]

COMPLETION_VARIABLE: Final = "_LIFECYCLE_COMPLETE"
"""Environment variable with which a shell asks for completions: see `click.shell_completion`."""
FOUND_WRONG: Final = 1
"""Exit code of a command that worked, and found something wrong."""

SUMMARIES: Final = {
    "run": "Run a consumer: its workers run the queue's tasks until the consumer is stopped.",
    "demo": "Show every scenario of the lifecycle with real tasks, in real consumers, on a new SQLite file.",
    "list": "List tasks, the newest first.",
    "show": "Show a task: its call, its result or last error, and its history.",
    "history": "Show the states that a task entered, and when.",
    "stats": "Count the tasks in each state.",
    "workers": "Show the workers that run tasks now: which tasks, for how long, and whether the workers are alive.",
    "cron": "Show periodic tasks, their next ticks and latest tasks; run, pause or resume one.",
    "call": "Enqueue a call of a task function, and wait for its result if asked to.",
    "retry": "Run a task that rests in an outcome (error, timeout, …) once more.",
    "cancel": "Cancel a task that waits, or that runs at this moment.",
    "revoke": "Do not run a task (again).",
    "purge": "Delete tasks that have been at rest for some time, or in a state, with their results and histories.",
    "verify": "Prove what the table promises, and print its language: as an automaton, as an expression, and counted.",
    "check": "Check a recorded trace against the table: name the first illegal signal of each task.",
    "migrate": "Create the tables of a store on PostgreSQL, or bring them up to date with this release.",
    "diagram": "Draw the lifecycle, a recorded scenario, or the path of one task.",
    "completion": "Print a script for your shell, with which the Tab key completes commands and options.",
}
"""Name → first paragraph of the help. It stands here so that listing the commands imports none of them."""

Function = TypeVar("Function", bound=Callable[..., None])


class FoundWrong(click.ClickException):
    """The command worked, and found something wrong: an error line and exit code 1."""

    exit_code = FOUND_WRONG


class TextType(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases
    """A text, as UTF-8: a store takes no other, and a shell may pass any bytes, in any locale."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text. Raises `click.BadParameter` for bytes that are none."""
        try:
            return os.fsencode(value).decode()
        except UnicodeError:
            self.fail(f"{os.fsencode(value)!r} is no text in UTF-8", param, ctx)


TEXT: Final = TextType()


class Argument(click.Argument):
    """An argument with a help text; click itself has them from 8.5 on."""

    def __init__(self, param_decls: list[str], about: str, **attributes: Any) -> None:
        super().__init__(param_decls, **attributes)
        self.about = about + " [required]" * self.required


class Command(click.Command):
    """A command whose help lists its arguments, too."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write two lists: the arguments, and the options."""
        arguments = [(one.metavar or "", one.about) for one in self.params if isinstance(one, Argument)]
        if arguments:
            with formatter.section("Arguments"):
                formatter.write_dl(arguments)
        super().format_options(ctx, formatter)


def command(name: str, details: str = "") -> Callable[[Callable[..., None]], Command]:
    """Declare a command; `details`: the paragraphs of its help after the summary."""
    return click.command(name, Command, help=f"{SUMMARIES[name]}\n\n{details}".rstrip())


target_argument: Final = click.argument(
    "target", cls=Argument, type=TEXT, metavar="[MODULE:QUEUE]", required=False, about="The queue, as in tasks:queue."
)
url_option: Final = click.option(
    "--url", type=TEXT, metavar="URL", help="The store, instead of a queue; default: $LIFECYCLE_URL."
)
name_option: Final = click.option(
    "--name",
    type=TEXT,
    metavar="NAME",
    default="default",
    show_default=True,
    help="With --url: the queue's name in the store.",
)
task_id_argument: Final = click.argument("task_id", cls=Argument, type=TEXT, metavar="ID", about="The task's id.")
json_option: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def with_queue(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the ways to name a queue, and its function the open queue as the first argument."""
    return _with_queue(function, to_read=False)


def with_queue_to_read(function: Callable[..., None]) -> Callable[..., None]:
    """Do the same as `with_queue` for a command that changes nothing: the right to read the store is enough."""
    return _with_queue(function, to_read=True)


def _with_queue(function: Callable[..., None], *, to_read: bool) -> Callable[..., None]:
    @target_argument
    @url_option
    @name_option
    @functools.wraps(function)
    def on_queue(target: str | None, url: str | None, name: str, **options: object) -> None:
        with closing(find_queue(target, url, name, to_read=to_read)) as queue:
            function(queue, **options)

    return on_queue


def find_queue(target: str | None, url: str | None, name: str, *, to_read: bool = False) -> "TaskQueue":
    """Return the queue that the command line names; `to_read`: nothing will be changed.

    Raises `click.UsageError` if it names two, or a SQLite file that does not exist; `ConfigurationError`, for a queue
    in memory.
    """
    from lifecycle.consumer.loading import load_queue
    from lifecycle.queue import DEFAULT_URL, URL_VARIABLE, TaskQueue
    from lifecycle.storage import MemoryStorage, SQLiteStorage

    if target is not None and url is not None:
        raise click.UsageError("give a queue (tasks:queue) or --url, not both")
    if target is not None:
        queue = load_queue(target)
    else:
        url = url or os.environ.get(URL_VARIABLE) or DEFAULT_URL
        if url.startswith("sqlite:"):
            path = Path(unquote(urlsplit(url).path.removeprefix("/")))
            if not path.exists():  # a command that reads a queue must not create one
                raise click.UsageError(f"there is no file {path}")
        queue = TaskQueue(url, name=name)
    if isinstance(queue.storage, MemoryStorage):
        raise ConfigurationError(
            f"{target or url} is in the memory of each process: a command sees none of its tasks; name another store"
        )
    if to_read and isinstance(queue.storage, SQLiteStorage):
        queue.storage.read_only_if_needed()
    return queue


def find_table(target: str | None) -> "Lifecycle":
    """Return the table that the command line names; without a name, the lifecycle of tasks.

    Raises `FoundWrong` if the module builds a faulty table, `ConfigurationError` if there is no table of that name.
    """
    if target is None:
        from lifecycle.core.table import LIFECYCLE

        return LIFECYCLE
    from lifecycle.consumer.loading import load_table

    try:
        return load_table(target)
    except ConfigurationError as error:
        if isinstance(error.__cause__, FaultyTable):
            raise FoundWrong(str(error)) from None
        raise
