"""The SQL statements of the SQLite adapter, and tasks and revocations read from the rows that they return."""

import logging
from collections.abc import Collection, Sized
from typing import Any, Final

import msgspec

from lifecycle.core.policies import REVOKED_RANK, Revocation
from lifecycle.core.step import Step, step_from
from lifecycle.core.task import FENCE, NO_DELAY, RetryPolicy, Task, policy_fields

__all__ = [
    "COLUMN_COUNT", "DELETE_REVOCATION", "HAS_FENCE", "INSERT", "INSERT_ALONE", "MOVE", "NEXT_DUE", "PROMOTE",
    "REVOCATION", "TASK", "first_ready", "marks", "next_not_skipped", "policy_text", "revocation_from", "task_from",
]  # fmt: skip

log = logging.getLogger("lifecycle.storage")

_COLUMNS: Final = (
    "id, name, payload, state, eta, expires, priority, retries, policy, timeout, attempt, interruptions, worker,"
    " version, lease, seq, canceling, enqueued, step, verdict"
)
"""Columns of a task, in the order of the fields of `Task`; the last two make one field."""
COLUMN_COUNT: Final = len(_COLUMNS.split(", "))
HAS_FENCE: Final = " and ".join(f"{name}=?" for name in FENCE)
"""Condition that a row has a certain fence."""
TASK: Final = f"select {_COLUMNS} from task"
"""Select tasks; a condition follows. `task_from` reads the rows."""
INSERT: Final = (
    "insert into task(queue, id, name, payload, state, eta, expires, priority, retries, policy, timeout, attempt,"
    " interruptions, worker, version, lease, rank, due, history, enqueued, step)"
    " values (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
"""Insert a task."""
INSERT_ALONE: Final = (
    INSERT.replace(" values (", " select ").removesuffix(")")
    + " where not exists(select 1 from revocation where queue=? and function=0 and key=?) on conflict do nothing"
)
"""Insert a task, unless its id is taken or was revoked in advance: one statement in the place of a transaction."""
MOVE: Final = (
    "update task set state=?, eta=?, retries=?, attempt=?, interruptions=?, worker=?, version=version+?, lease=?,"
    " rank=?, due=?, ended=?, canceling=canceling and ? is null, result=ifnull(?, result), history=history||?"
    f" where queue=? and {HAS_FENCE}"
)
"""Commit a move: no other statement changes a state. A row with another fence is not found.

The moment of the end is given twice: Python 3.12.1 warns of numbered placeholders."""
_FIRST_READY: Final = (
    "select t." + _COLUMNS.replace(", ", ", t.") + ", o.once, o.until, f.once, f.until,"
    " (select d.due from task d where d.queue=t.queue and d.due is not null order by d.due limit 1)"
    " from task t"
    " left join revocation o on o.queue=t.queue and o.function=0 and o.key=t.id"
    " left join revocation f on f.queue=t.queue and f.function=1 and f.key=t.name"
    " where t.queue=? and t.rank is not null SKIPPING order by t.rank desc, t.seq limit ?"
)
"""Select all that a claim needs: the tasks that come first, the revocations of each task and of its function, and the
time when the next scheduled task becomes due."""
_FIRST_READY_OF_ALL: Final = _FIRST_READY.replace("SKIPPING ", "")
PROMOTE: Final = (
    "update task set rank=priority, due=null where seq in"
    " (select seq from task where queue=? and due<=? order by due, seq limit ?)"
)
"""Give due tasks a rank, the earliest first."""
NEXT_DUE: Final = (
    "select exists(select 1 from task where queue=? and rank is not null),"
    " (select due from task where queue=? and due is not null order by due limit 1)"
)
"""Select whether a task has a rank, and the earliest due time."""
_NOT_SKIPPED: Final = f"(t.name not in (NAMES) or t.rank={REVOKED_RANK} or (t.attempt=0 and t.expires<=?))"
_NEXT_NOT_SKIPPED: Final = (
    f"select max(name not in (NAMES) or rank={REVOKED_RANK}), min(case when attempt=0 then expires end)"
    " from task where queue=? and rank is not null"
)
REVOCATION: Final = "select once, until from revocation where queue=? and function=? and key=?"
DELETE_REVOCATION: Final = "delete from revocation where queue=? and function=? and key=?"


def marks(values: Sized) -> str:
    """Return a placeholder for each value."""
    return ",".join("?" * len(values))


def first_ready(skip_names: Collection[str]) -> str:
    """Return the statement of a claim. Its parameters are the queue, the names and the time if any, and the limit."""
    if not skip_names:
        return _FIRST_READY_OF_ALL
    return _FIRST_READY.replace("SKIPPING", f"and {_NOT_SKIPPED}").replace("NAMES", marks(skip_names))


def next_not_skipped(skip_names: Collection[str]) -> str:
    """Return a statement: whether a task has a rank that a claim considers, and the earliest expiry of skipped tasks.

    Its parameters are the names and the queue.
    """
    return _NEXT_NOT_SKIPPED.replace("NAMES", marks(skip_names))


def revocation_from(row: tuple[Any, ...] | None) -> Revocation | None:
    """Return the revocation in a row of (once, until); ``None`` if there is no row, or an empty one."""
    return None if row is None or row[0] is None else Revocation(row[1], bool(row[0]))


def task_from(row: tuple[Any, ...]) -> Task:
    """Return the task in a row that begins with the columns of `TASK`."""
    retry = NO_DELAY if row[8] is None else _policy(row[8])
    step = None if row[18] is None else _step(row[18], row[19])
    return Task(*row[:8], retry, *row[9:16], bool(row[16]), row[17], step)  # type: ignore[call-arg]  # mypy cannot count


def policy_text(policy: RetryPolicy) -> str | None:
    """Return a retry policy as JSON, for its column; ``None`` for the default."""
    return None if policy is NO_DELAY else msgspec.json.encode(policy_fields(policy)).decode()


def _step(text: str, verdict: str | None) -> Step:
    try:
        return step_from(text, verdict)
    except ValueError as error:  # the same: the task waits on
        log.warning("cannot read the stored place of a task in its workflow: error=%s", error)
        return Step()


def _policy(text: str) -> RetryPolicy:
    try:
        return msgspec.json.decode(text, type=RetryPolicy)
    except msgspec.MsgspecError as error:  # edited by hand: one bad row must not stop the claims of all other tasks
        log.warning("cannot read a stored retry policy, the task is retried without a delay: error=%s", error)
        return NO_DELAY
