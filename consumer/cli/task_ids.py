"""Short ids: the ends of ids that are printed, and the task that a beginning or an end of an id names."""

import re
import sys
from collections.abc import Callable, Collection, Iterable
from typing import Final

import click

from lifecycle.consumer.cli.output import shown
from lifecycle.errors import UnknownTask
from lifecycle.queue import TaskQueue

__all__ = ["ShortIds", "find_id", "printed_ids"]

SHORTEST: Final = 6
"""Characters of the shortest end of an id that is printed."""
WHOLE_LIMIT: Final = 20
"""An id that a user has chosen is printed whole up to this length."""
CANDIDATE_LIMIT: Final = 5
"""Tasks that are listed if a beginning or an end belongs to several."""
TASKS_PER_COLLISION: Final = 1000
"""At most one task of so many shares the printed end of its id with another task, whatever the size of the store."""
GENERATED: Final = re.compile("[0-9a-f]{32}")
"""An id that the queue made: it begins with the time, and ends with random digits."""


class ShortIds:
    """The printed ends of ids: long enough to be different on the page, and in a store of that many tasks."""

    def __init__(self, task_count: int) -> None:
        """`task_count`: number of tasks in the store."""
        self._shortest = SHORTEST
        while 16**self._shortest < task_count * TASKS_PER_COLLISION:
            self._shortest += 1

    def of(self, ids: Collection[str]) -> dict[str, str]:
        """Return each id of a page with its short form."""
        whole = {one for one in ids if len(one) <= WHOLE_LIMIT and not GENERATED.fullmatch(one)}
        length = self._shortest
        while not _are_different([one[-length:] for one in ids if one not in whole], whole):
            length += 1
        return {one: one if one in whole else one[-length:] for one in ids}


def printed_ids(queue: TaskQueue, *, full: bool = False) -> Callable[[Collection[str]], dict[str, str]]:
    """Return a function from the ids of a page to their printed forms: short on a terminal, unless `full`."""
    if full or not sys.stdout.isatty():
        return lambda ids: dict(zip(ids, ids, strict=True))
    return ShortIds(sum(queue.counts().values())).of


def _are_different(ends: Iterable[str], others: Collection[str]) -> bool:
    seen = set(others)
    for end in ends:
        if end in seen:
            return False
        seen.add(end)
    return True


def find_id(queue: TaskQueue, text: str) -> str:
    """Return the id that is `text`, or the only id that begins or ends with it.

    Raises `UnknownTask`, and `click.UsageError` with some candidates if there are several.
    """
    try:
        return queue.get(text).id
    except UnknownTask:
        found = queue.storage.find_ids(text, CANDIDATE_LIMIT + 1) if text else []
        if not found:
            raise
    if len(found) == 1:
        return found[0]
    tasks = [task for one in found[:CANDIDATE_LIMIT] if (task := queue.storage.get(one)) is not None]
    candidates = [shown(f"{task.id} ({task.name}, {task.state})") for task in tasks]
    more = ", …" * (len(found) > CANDIDATE_LIMIT)
    raise click.UsageError(f"{shown(text)!r} is the beginning or end of several ids: {', '.join(candidates)}{more}")
