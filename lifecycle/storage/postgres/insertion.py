"""Insertion of new tasks: any number of tasks in one transaction."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from lifecycle.core.policies import Move
from lifecycle.core.task import Task
from lifecycle.errors import DuplicateTask
from lifecycle.storage.claims import visibility_after
from lifecycle.storage.postgres.exchange import own_revocations
from lifecycle.storage.postgres.session import text_array
from lifecycle.storage.postgres.statements import Statements
from lifecycle.storage.postgres.transaction import Transaction

__all__ = ["check_ids", "fits_one_statement", "insert"]

_STATEMENT_LIMIT: Final = 1000
"""Largest number of tasks in one statement."""
_STATEMENT_LIMIT_BYTES: Final = 2**25
"""About the largest number of bytes of arguments in one statement."""


def check_ids(tasks: Sequence[Task]) -> None:
    """Raise `DuplicateTask` if two tasks have the same id."""
    if len({task.id for task in tasks}) < len(tasks):
        raise DuplicateTask(next(task_id for task_id, count in Counter(task.id for task in tasks).items() if count > 1))


def fits_one_statement(tasks: Sequence[Task]) -> bool:
    """Return whether one statement can insert the tasks; not if one is a step of a workflow."""
    if any(task.step is not None for task in tasks):
        return False
    return len(tasks) <= _STATEMENT_LIMIT and sum(len(task.payload) for task in tasks) <= _STATEMENT_LIMIT_BYTES


def insert(
    statements: Statements, transaction: Transaction, queue: int, tasks: Sequence[Task], moves: Sequence[Move]
) -> list[int]:
    """Insert tasks, ranked by the revocations of their ids; return their `seq`. Raises `DuplicateTask`."""
    ids = [task.id for task in tasks]
    (revocations,) = transaction.run((statements.own_revocations, (queue, text_array(ids))))
    own = own_revocations(revocations.rows)
    numbers: dict[str, int] = {}
    for part in _parts(tasks):
        places = [
            visibility_after(task, move, own.get(task.id)) for task, move in zip(tasks[part], moves[part], strict=True)
        ]
        (result,) = transaction.run(statements.insert(queue, tasks[part], moves[part], places, if_new=False))
        numbers |= {task_id: seq for seq, task_id in result.rows}
    for task_id in ids:
        if task_id not in numbers:
            raise DuplicateTask(task_id)
    if waiting := [(task.id, task.step.awaits) for task in tasks if task.step is not None and task.step.awaits]:
        transaction.run(statements.count_awaited(queue, waiting))
    return [numbers[task_id] for task_id in ids]


def _parts(tasks: Sequence[Task]) -> Iterator[slice]:
    """Yield slices of tasks, each for one statement."""
    begin = size = 0
    for end, task in enumerate(tasks):
        if end - begin == _STATEMENT_LIMIT or (size and size + len(task.payload) > _STATEMENT_LIMIT_BYTES):
            yield slice(begin, end)
            begin, size = end, 0
        size += len(task.payload)
    yield slice(begin, len(tasks))
