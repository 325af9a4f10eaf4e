"""``lifecycle call``: enqueue a call of a task function from a shell."""

import re
from collections.abc import Sequence
from typing import Final

import click
import msgspec

from lifecycle.consumer.cli.options import TEXT, Argument, FoundWrong, command, json_option
from lifecycle.consumer.cli.output import print_json, shown, write
from lifecycle.consumer.cli.task_fields import call_text, plain, repr_of, traceback_text
from lifecycle.consumer.loading import load_function
from lifecycle.errors import ConfigurationError, ResultTimeout, TaskException
from lifecycle.result import Result
from lifecycle.storage import MemoryStorage

__all__ = ["call"]

DETAILS: Final = """
An argument is JSON (5, true, null, '[1, 2]', '"5"') or else a plain text (Ann, 2026-11-28); name=VALUE is a keyword
argument. Write -- before arguments that begin with a dash.
"""
KEYWORD: Final = re.compile(r"([^\W\d]\w*)=(.*)", re.DOTALL)
JSON_BEGINNINGS: Final = ("{", "[", '"')
"""An argument that begins so must be JSON: a text of that kind is more likely a mistake."""


@command("call", DETAILS)
@click.argument(
    "target", cls=Argument, type=TEXT, metavar="MODULE:FUNCTION", about="The task function, as in tasks:add."
)
@click.argument("arguments", cls=Argument, type=TEXT, metavar="[ARGUMENT]...", nargs=-1, about="Its arguments.")
@click.option("--delay", type=float, metavar="SECONDS", help="Start after so many seconds.")
@click.option("--priority", type=int, metavar="NUMBER", help="Higher priorities start first.")
@click.option("--wait", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait so long for the result; print it.")
@json_option
def call(
    target: str,
    arguments: tuple[str, ...],
    delay: float | None,
    priority: int | None,
    wait: float | None,
    as_json: bool,
) -> None:
    """Enqueue a call, and print the task's id or its result."""
    function = load_function(target)
    engine = function._engine
    if isinstance(engine.environment.storage, MemoryStorage) and engine.after_enqueue is None:
        raise ConfigurationError(
            f"{target} belongs to a queue in the memory of each process: no consumer sees the task"
        )
    args, kwargs = _parse(arguments)
    try:
        result = function.schedule(args, kwargs, delay=delay, priority=priority)
    except TypeError as error:  # the arguments do not fit
        raise click.UsageError(str(error)) from None
    if wait is None:
        _print_task(result, as_json=as_json)
    else:
        _print_result(result, wait, as_json=as_json)


def _print_task(result: Result[object], *, as_json: bool) -> None:
    task = result.task
    if as_json:
        print_json({"id": task.id, "state": task.state})
    else:
        write(f"task {shown(task.id)} is {task.state}: {shown(call_text(task))}\n")


def _print_result(result: Result[object], wait_seconds: float, *, as_json: bool) -> None:
    """Print the value of a task. Raises `FoundWrong` if the task fails, or has no outcome in time."""
    try:
        value = result.get(timeout=wait_seconds)
    except TaskException as error:
        write(traceback_text(error))
        raise FoundWrong(f"task {result.id} ended in {error.state}: {error}") from None
    except ResultTimeout:
        state = result.state
        raise FoundWrong(f"task {result.id} has no outcome after {wait_seconds:g} s: it is {state}") from None
    if as_json:
        print_json({"id": result.id, "state": result.state, "result": plain(value)})
    else:
        write(f"{shown(repr_of(value))}\n")


def _parse(arguments: Sequence[str]) -> tuple[tuple[object, ...], dict[str, object]]:
    """Return the positional and the keyword arguments. Raises `click.UsageError`."""
    args: list[object] = []
    kwargs: dict[str, object] = {}
    for text in arguments:
        keyword = KEYWORD.fullmatch(text)
        if keyword is None:
            if kwargs:
                raise click.UsageError(
                    f"{text!r} stands after {next(reversed(kwargs))}=…: write keyword arguments last"
                )
            args.append(_value(text))
        elif keyword[1] in kwargs:
            raise click.UsageError(f"the argument {keyword[1]} is given twice")
        else:
            kwargs[keyword[1]] = _value(keyword[2])
    return tuple(args), kwargs


def _value(text: str) -> object:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        if text.lstrip().startswith(JSON_BEGINNINGS):
            raise click.UsageError(f"{text!r} is no JSON: {error}") from None
        return text
