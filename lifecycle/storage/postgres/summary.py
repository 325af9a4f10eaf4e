"""Summaries of blocks of tasks: numbers of tasks and pages of tasks without reading all rows.

A block is 1,024 tasks of consecutive numbers, of all queues in the schema. Its summary has a part for each state, and
for each state of each function: the number of tasks, the time of the latest enqueueing, and the tasks' own numbers if
these are few. Readers make summaries. A summary is there only while no task of its block is held, and it is deleted in
the transaction that moves or deletes a task of its block, so a summary that is there is right.

Transactions overlap: one that looked for a summary before there was one may move a task afterwards. So a summary is
made in two steps. First its row is inserted, without parts: whoever moves a task of the block from then on deletes the
row. Then, once all transactions have ended that were writing tasks at that time, the tasks are counted, if the row is
still there, and is the one that was inserted: its `ticket` says so.
"""

from typing import Any, Final

from lifecycle.core.table import LIFECYCLE, Kind
from lifecycle.core.task import Task
from lifecycle.errors import StorageError
from lifecycle.storage.postgres.rows import task_from_row
from lifecycle.storage.postgres.schema import BLOCK_BITS, FEW, quoted
from lifecycle.storage.postgres.server import PostgresServer
from lifecycle.storage.postgres.session import Command, Statement, number_array, text_array

__all__ = ["Summary"]

_WORTHWHILE: Final = 4
"""Number of blocks without a summary from which a reader makes summaries."""
_STEP: Final = 8
"""Largest number of blocks that are counted in one transaction: claims of their tasks wait meanwhile."""
_LOOKS: Final = 20
"""How often a reader looks whether the writers have ended, before it leaves the summaries to the next reader."""
_END: Final = 2**63 - 1
"""A number that no task has."""
_STORED_STATES: Final = [state.name for state in LIFECYCLE.states if state.kind is not Kind.PASSING]
_READ_ONLY_CODES: Final = ("25006", "42501")  # the server is a replica, the user may only read

_MISSING: Final = "select count(*) from SCHEMA.blocks_without_summary($1)"
_BEGIN: Final = (
    "insert into SCHEMA.summary(block, ticket)"
    " select block, pg_current_xact_id()::text::bigint from SCHEMA.blocks_without_summary($1) as block"
    " on conflict (block) do update set ticket = excluded.ticket where not summary.made"
    " returning block, ticket"
)
# A claim locks tasks, and forgets their blocks, before it writes.
_WRITERS: Final = (
    "select virtualtransaction from pg_locks where relation = to_regclass($1)"
    " and database = (select oid from pg_database where datname = current_database())"
    " and mode in ('RowShareLock', 'RowExclusiveLock') and pid <> pg_backend_pid()"
)
_FILL: Final = f"""
with begun as materialized (
  select block from SCHEMA.summary where block = any($1::bigint[]) and ticket = $2 and not made
  order by block for update skip locked
), task as materialized (
  select b.block, t.* from begun b cross join lateral (
    select seq, queue, name, state, enqueued, lease from SCHEMA.task
    where seq >= b.block << {BLOCK_BITS} and seq < (b.block + 1) << {BLOCK_BITS} offset 0
  ) t
), free as materialized (
  select block from task group by block having bool_and(lease is null)
), made as (
  update SCHEMA.summary s set made = true from free where s.block = free.block
)
insert into SCHEMA.summary_part(queue, name, state, block, number, latest, places)
select t.queue, case grouping(t.name) when 0 then '=' || t.name else '' end, t.state, t.block, count(*), max(enqueued),
  case when count(*) <= {FEW} then array_agg(seq) end
from task t where t.block = any(array(select block from free))
group by grouping sets ((t.queue, t.state, t.block), (t.queue, t.name, t.state, t.block))
on conflict (queue, name, state, block) do update
set number = excluded.number, latest = excluded.latest, places = excluded.places
returning 1
"""
_CLEAN: Final = "delete from SCHEMA.summary where block = any($1::bigint[]) and ticket = $2 and not made"
_COUNTS: Final = f"""
with space as materialized (
  select low, high from (
    select block + 1 as low, lead(block, 1, {_END >> BLOCK_BITS}) over (order by block) as high
    from (select block from SCHEMA.summary where made union all select -1) as one
  ) as every where low < high
)
select state, sum(number)::bigint from (
  select state, number from SCHEMA.summary_part where queue = $1 and name = ''
  union all
  select c.state, c.number from space cross join lateral (
    select state, count(*) as number from SCHEMA.task
    where seq >= low << {BLOCK_BITS} and seq < high << {BLOCK_BITS} and queue + 0 = $1 group by state offset 0
  ) c
) as every group by state
"""
_PAGE: Final = "select * from SCHEMA.page_of_tasks($1, $2, $3, $4, $5, $6)"


class Summary:
    """The summaries of one schema."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._table = f"{quoted(server.schema)}.task"
        self._can_write = True
        self._long_writers: set[str] = set()
        """Transactions that were not over when summaries should have been made: until then none are made."""

        def statement(name: str, sql: str) -> Statement:
            return Statement(name.encode(), sql.replace("SCHEMA", quoted(server.schema)).encode())

        self._missing, self._begin = statement("missing", _MISSING), statement("begin_summaries", _BEGIN)
        self._fill, self._clean = statement("fill_summaries", _FILL), statement("clean_summaries", _CLEAN)
        self._counts, self._page = statement("counts", _COUNTS), statement("newest_tasks", _PAGE)
        self._find_writers = Statement(b"writers", _WRITERS.encode())

    def counts(self) -> dict[str, int]:
        """Return the number of tasks in each state."""
        return dict(self._look((self._counts, (self._server.queue_id,))))

    def tasks(
        self, states: list[str] | None, limit: int, before: int | None, name: str | None, since: float | None
    ) -> list[Task]:
        """Return tasks, the newest first: see `Storage.tasks`."""
        end = _END if before is None else before
        wanted = text_array(_STORED_STATES if states is None else states)
        rows = self._look((self._page, (self._server.queue_id, end, wanted, limit, name, since)))
        return list(map(task_from_row, rows))

    def _look(self, command: Command) -> list[tuple[Any, ...]]:
        missing, found = self._server.read_all((self._missing, (_WORTHWHILE,)), command)
        if missing.rows[0][0] == _WORTHWHILE and self.make():
            return self._server.read_all(command)[0].rows
        return found.rows

    def make(self) -> bool:
        """Make the summaries that are missing, if they are many; return whether some were made."""
        try:
            return self._can_write and self._make()
        except StorageError as error:
            if getattr(error.__cause__, "sqlstate", None) not in _READ_ONLY_CODES:
                raise
            self._can_write = False
            return False

    def _make(self) -> bool:
        self._server.queue_id  # noqa: B018 -- creates the schema, if need be
        if self._long_writers and self._long_writers & self._writers():
            return False
        if self._server.read(self._missing, _WORTHWHILE)[0][0] < _WORTHWHILE:
            return False
        (begun,) = self._server.write((self._begin, (_END >> 32,)))
        if not begun.rows:
            return False
        blocks, ticket = sorted(block for block, _ in begun.rows), begun.rows[0][1]
        self._long_writers = self._writers()
        for _ in range(_LOOKS):
            if not self._long_writers:
                break
            self._long_writers &= self._writers()
        for first in range(0, len(blocks) if not self._long_writers else 0, _STEP):
            self._server.write((self._fill, (number_array(blocks[first : first + _STEP]), ticket)))
        self._server.write((self._clean, (number_array(blocks), ticket)))
        return not self._long_writers

    def _writers(self) -> set[str]:
        """Return the transactions that are writing tasks."""
        return {writer for (writer,) in self._server.read(self._find_writers, self._table)}
