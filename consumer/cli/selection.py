"""Filters of tasks: the options of the commands, and the tasks that they select."""

import functools
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Final

import attrs
import click

from lifecycle.consumer.cli.columns import PAGE_LIMIT
from lifecycle.consumer.cli.options import TEXT
from lifecycle.consumer.cli.task_fields import call_text
from lifecycle.core.policies import AT_REST
from lifecycle.core.table import COMPLETED, LIFECYCLE
from lifecycle.core.task import Task
from lifecycle.errors import TaskException
from lifecycle.queue import TaskQueue

__all__ = ["Duration", "Found", "Selection", "filter_options", "read_duration", "state_option"]

UNIT_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")


def read_duration(text: str) -> float | None:
    """Return the seconds of a text such as ``90s``, ``30m``, ``1.5h``, ``2d`` or ``1w``; ``None`` for another text."""
    found = DURATION.fullmatch(text.strip())
    return None if found is None else float(found[1]) * UNIT_SECONDS[found[2]]


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases
    """A duration, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds. Raises `click.BadParameter`."""
        seconds = value if isinstance(value, float) else read_duration(value)
        return (
            self.fail(f"{value!r} is no duration, as in 90s, 30m, 2h, 7d", param, ctx) if seconds is None else seconds
        )


class _Since(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases
    """A moment: a duration before now (seconds), or a date with or without a time (datetime)."""

    name = "since"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | datetime:
        """Return the duration or the datetime; without a zone, local time is meant. Raises `click.BadParameter`."""
        if isinstance(value, float | datetime):
            return value
        seconds = read_duration(value)
        if seconds is not None:
            return seconds
        try:
            return datetime.fromisoformat(value).astimezone()
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is neither a duration (30m, 2h, 7d) nor a date (2026-11-28, 2026-11-28T14:30)", param, ctx
            )


@attrs.frozen
class Found:
    """A task with its last error."""

    task: Task
    error: TaskException | None


@attrs.frozen
class Selection:
    """The filters of a command line."""

    states: tuple[str, ...] = ()
    name: str | None = None
    """Name of the function."""
    since: float | datetime | None = None
    worker: str | None = None
    text: str | None = None
    ended_since: float | datetime | None = None

    @property
    def is_empty(self) -> bool:
        """True if there is no filter."""
        times = self.since is not None, self.ended_since is not None
        return not any((self.states, self.name, *times, self.worker, self.text))

    def pages(self, queue: TaskQueue, limit: int | None = None) -> Iterator[list[Found]]:
        """Yield the newest tasks that pass all filters, at most `limit` (``None``: all), page by page."""
        now = queue.engine.clock.now()
        since, ended = _moment(self.since, now), _moment(self.ended_since, now)
        narrow = self.worker, self.text, ended  # filters that the store does not have
        is_narrow = any(one is not None for one in narrow)
        last: Task | None = None
        while limit is None or limit > 0:
            size = PAGE_LIMIT if limit is None or is_narrow else min(limit, PAGE_LIMIT)
            tasks = queue.tasks(self.states or None, size, last, name=self.name, since=since)
            if not tasks:
                return
            last, is_last = tasks[-1], len(tasks) < size
            if ended is not None:
                tasks = [task for task in tasks if _ended_since(queue, task, ended)]
            errors = queue.errors([task.id for task in tasks if task.attempt and task.state != COMPLETED])
            page = [found for task in tasks if self._passes(found := Found(task, errors.get(task.id)))][:limit]
            if page:
                yield page
            if is_last:
                return
            limit = None if limit is None else limit - len(page)

    def _passes(self, found: Found) -> bool:
        task, text = found.task, self.text
        if self.worker is not None and self.worker not in (task.worker or ""):
            return False
        return text is None or any(text in one for one in (task.id, task.name, str(found.error or ""), call_text(task)))


def _moment(time: float | datetime | None, now: float) -> float | None:
    """Return a moment in UTC seconds; a number is a duration before now."""
    return time.timestamp() if isinstance(time, datetime) else None if time is None else now - time


def _ended_since(queue: TaskQueue, task: Task, moment: float) -> bool:
    """Return whether a task is at rest since that moment, or came to rest later."""
    records = queue.storage.history(task.id) if task.state in AT_REST else None
    return records is not None and records[-1].at >= moment


def _complete_state(context: click.Context, option: click.Parameter, incomplete: str) -> list[str]:
    """Return the states that begin so, for the shell."""
    del context, option
    return [state.name for state in LIFECYCLE.states if state.name.startswith(incomplete)]


def state_option(about: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the decorator that gives a command the option ``--state``, and its function the argument `states`."""
    return click.option(
        "-s", "--state", "states", metavar="STATE", multiple=True, help=about, shell_complete=_complete_state
    )


def filter_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the filters, and its function a `Selection` as the argument `selection`."""

    @state_option("Only tasks in this state; repeatable.")
    @click.option("-t", "--task", "function_name", type=TEXT, metavar="NAME", help="Only of this function.")
    @click.option("--since", type=_Since(), metavar="TIME", help="Only enqueued since then: 30m, 2h, 7d or a date.")
    @click.option("--ended-since", type=_Since(), metavar="TIME", help="Only at rest, and come to rest since then.")
    @click.option("--worker", type=TEXT, metavar="TEXT", help="Only with this in the last worker's name.")
    @click.option("--text", type=TEXT, metavar="TEXT", help="Only with this in id, call or error.")
    @functools.wraps(function)
    def filtered(
        *queue: TaskQueue,
        states: tuple[str, ...],
        function_name: str | None,
        since: float | datetime | None,
        ended_since: float | datetime | None,
        worker: str | None,
        text: str | None,
        **options: object,
    ) -> None:
        for option, value in ("--task", function_name), ("--worker", worker), ("--text", text):
            if value == "":  # perhaps a variable of a shell that is not set: the filter must not vanish
                raise click.UsageError(f"{option} is empty: leave it out, or name what you look for")
        function(*queue, selection=Selection(states, function_name, since, worker, text, ended_since), **options)

    return filtered
