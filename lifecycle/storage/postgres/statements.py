"""The SQL statements of the PostgreSQL adapter, for one schema, and their parameters."""

from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from lifecycle.core.policies import REVOKED_RANK, WAITING, Move
from lifecycle.core.step import Report, step_text
from lifecycle.core.table import EXECUTING
from lifecycle.core.task import FENCE, Task
from lifecycle.storage.claims import Visibility
from lifecycle.storage.postgres.rows import policy_text
from lifecycle.storage.postgres.schema import COLUMNS, quoted
from lifecycle.storage.postgres.session import Command, Statement, Value, bytes_array, number_array, text_array

__all__ = ["Statements"]

_Column = tuple[Callable[[Any], Value], Sequence[Any]]
"""Encoder of a list of values, and the values."""

_NEW: Final = (
    "id text, name text, payload bytea, state text, eta float8, expires float8, priority int8, retries int8,"
    " policy text, timeout float8, worker text, lease float8, rank int8, due float8, history text, enqueued float8,"
    " step text"
)
_INSERT: Final = (
    "insert into SCHEMA.task(queue, id, name, payload, state, eta, expires, priority, retries, policy, timeout,"
    " attempt, interruptions, worker, version, lease, rank, due, history, enqueued, step)"
    " select $1::int, id, name, payload, state, eta, expires, priority, retries, policy, timeout, 0, 0, worker, 1,"
    " lease, rank, due, history, enqueued, step from NEW as new"
)
_MOVED: Final = (
    "was_id text, was_seq int8, was_version int8, was_state text, was_worker text, state text, eta float8,"
    " retries int8, attempt int8, interruptions int8, worker text, steps int8, lease float8, rank int8, due float8,"
    " ended float8, result bytea, history text"
)
# The only statement that changes a state. A row whose fence has changed is not found.
_MOVE: Final = (
    "update SCHEMA.task t set state = m.state, eta = m.eta, retries = m.retries, attempt = m.attempt,"
    " interruptions = m.interruptions, worker = m.worker, version = t.version + m.steps, lease = m.lease,"
    " rank = m.rank, due = m.due, ended = m.ended, canceling = t.canceling and m.ended is null,"
    " result = coalesce(m.result, t.result), history = t.history || m.history from MOVED as m"
    f" where t.queue = $1 and {' and '.join(f't.{name} = m.was_{name}' for name in FENCE)} returning m.place"
)
_FENCE_ENCODERS: Final = text_array, number_array, number_array, text_array, text_array
"""Encoders of lists of the values of `Task.fence`."""
_WAITING: Final = ", ".join(f"'{state}'" for state in sorted(WAITING))


class Statements:
    """The statements, for one schema. The first parameter of each is the number of the queue."""

    def __init__(self, schema: str) -> None:
        self.schema = schema

        def statement(name: str, sql: str) -> Statement:
            fields = ", ".join(f"t.{column}" for column in COLUMNS)
            return Statement(name.encode(), sql.replace("SCHEMA", quoted(schema)).replace("FIELDS", fields).encode())

        self.queue = statement("queue", "select id from SCHEMA.queue where name = $1")
        # New tasks. `insert_if_new` inserts all or none: none if an id is taken, or was revoked in advance.
        new = (
            f"{_INSERT} where not exists (select from SCHEMA.task where id = any(IDS) and queue + 0 = $1)"
            " and not exists (select from SCHEMA.revocation where key = any(IDS) and queue = $1 and not function)"
            " returning seq"
        )
        self._insert_if_new = [
            statement("insert_one", new.replace("NEW", _one(_NEW)).replace("IDS", "array[$2::text]")),
            statement("insert_many", new.replace("NEW", _many(_NEW)).replace("IDS", "$2::text[]")),
        ]
        insert = f"{_INSERT} on conflict do nothing returning seq, id"
        self._insert = [
            statement("insert_one_of_all", insert.replace("NEW", _one(_NEW))),
            statement("insert_many_of_all", insert.replace("NEW", _many(_NEW))),
        ]
        self._move = [
            statement("move_one", _MOVE.replace("MOVED", _one(_MOVED))),
            statement("move_many", _MOVE.replace("MOVED", _many(_MOVED))),
        ]
        # Workflows
        self._report = statement(
            "report", "select SCHEMA.report($1::int, $2::text[], $3::text[], $4::bool[], $5::float8[])"
        )
        self._count_awaited = statement(
            "count_awaited",
            "insert into SCHEMA.awaits(queue, id, number)"
            " select $1::int, id, number from unnest($2::text[], $3::int8[]) as new(id, number)"
            " on conflict (id, queue) do update set number = excluded.number",  # the id of a task that was deleted
        )
        # Claims
        self.claimable = statement("claimable", "select * from SCHEMA.claim_first($1, $2, $3, $4)")
        # The same with names to skip. Revocations are read after the tasks are locked, so that none is missed.
        self.lock_ready = statement(
            "lock_ready",
            "select seq from SCHEMA.task where queue = $1 and rank is not null"
            f" and (name <> all($2::text[]) or rank = {REVOKED_RANK} or (attempt = 0 and expires <= $3))"
            " order by rank desc, seq limit $4 for update skip locked",
        )
        self.revocable = statement(
            "revocable",
            "select FIELDS, o.until, o.once, f.until, f.once from SCHEMA.task t"
            " left join lateral (select until, once from SCHEMA.revocation"
            " where key = t.id and queue = $1 and not function offset 0) o on true"
            " left join lateral (select until, once from SCHEMA.revocation"
            " where key = t.name and queue = $1 and function offset 0) f on true"
            " where t.seq = any($2::int8[]) order by t.rank desc, t.seq",
        )
        # Claims forget the summaries of the blocks of their tasks (`lifecycle.storage.postgres.summary`).
        self.forget_blocks = statement("forget_blocks", "select SCHEMA.forget_blocks($2::int8[]) where $1 > 0")
        self.spend_revocation = statement(
            "spend_revocation", "delete from SCHEMA.revocation where queue = $1 and function and key = $2 and once"
        )
        self._set_ranks = statement(
            "set_ranks",
            "update SCHEMA.task t set lease = null, rank = r.rank, due = r.due"
            " from unnest($2::int8[], $3::int8[], $4::float8[]) as r(seq, rank, due)"
            " where t.seq = r.seq and t.queue = $1",
        )
        # Locks of rows that will be changed; always by age, so that no two transactions wait for each other.
        self.lock_rows = statement(
            "lock_rows",
            "select FIELDS from SCHEMA.task t where seq = any($2::int8[]) and queue = $1 order by seq for update",
        )
        self.lock_row = statement(
            "lock_row", "select FIELDS from SCHEMA.task t where id = $2 and queue + 0 = $1 for update"
        )
        self.lock_lapsed = statement(
            "lock_lapsed",
            "select FIELDS from SCHEMA.task t where queue = $1 and lease <= $2 order by lease, seq limit $3"
            " for update skip locked",
        )
        self.any_lapsed = statement("any_lapsed", "select 1 from SCHEMA.task where queue = $1 and lease <= $2 limit 1")
        self.extend = statement(
            "extend",
            "with mine as materialized (select seq from SCHEMA.task where queue = $1 and lease is not null"
            " and worker = any($3::text[])),"
            " held as materialized (select t.seq from (select seq from mine order by seq offset 0) m"
            " join SCHEMA.task t on t.seq = m.seq and t.lease + 0 is not null and t.worker = any($3::text[])"
            " for update of t)"
            " update SCHEMA.task t set lease = $2 from held where t.seq = held.seq",
        )
        # Cancellation
        self.request_cancellation = statement(
            "request_cancellation",
            f"update SCHEMA.task set canceling = true where id = $2 and queue + 0 = $1 and state = '{EXECUTING}'",
        )
        self.canceling = statement(
            "canceling",
            "select id from SCHEMA.task where queue = $1 and canceling and worker = any($2::text[])"
            f" and state = '{EXECUTING}'",
        )
        # Revocations
        self.own_revocations = statement(
            "own_revocations",
            "select key, until, once from SCHEMA.revocation"
            " where key = any($2::text[]) and queue = $1 and not function",
        )
        self.revocations_of_lapsed = statement(
            "revocations_of_lapsed",
            "select r.key, r.until, r.once from SCHEMA.task t join SCHEMA.revocation r"
            " on r.key = t.id and r.queue + 0 = $1 and not r.function where t.queue = $1 and t.lease <= $2",
        )
        self.revocation = statement(
            "revocation", "select until, once from SCHEMA.revocation where queue = $1 and function = $2 and key = $3"
        )
        self.store_revocation = statement(
            "store_revocation",
            "insert into SCHEMA.revocation(queue, function, key, until, once) values ($1, $2, $3, $4, $5)"
            " on conflict (queue, function, key) do update set until = excluded.until, once = excluded.once",
        )
        self.delete_revocation = statement(
            "delete_revocation", "delete from SCHEMA.revocation where queue = $1 and function = $2 and key = $3"
        )
        self.delete_own_revocations = statement(
            "delete_own_revocations",
            "delete from SCHEMA.revocation where key = any($2::text[]) and queue = $1 and not function",
        )
        # Locks
        self.lock = statement(
            "lock",
            "insert into SCHEMA.lock(queue, name, owner, until, worker, task) values ($1, $2, $3, $4, $5, $6)"
            " on conflict (queue, name) do update set owner = excluded.owner, until = excluded.until,"
            " worker = excluded.worker, task = excluded.task where lock.until <= $7",
        )
        self.unlock = statement("unlock", "delete from SCHEMA.lock where queue = $1 and name = $2 and owner = $3")
        self.locks = statement(
            "locks", "select name, owner, until, worker, task from SCHEMA.lock where queue = $1 and until > $2"
        )
        self.flush_locks = statement(
            "flush_locks", "delete from SCHEMA.lock where queue = $1 and ($2::text[] is null or name = any($2::text[]))"
        )
        self.free_locks = statement("free_locks", "delete from SCHEMA.lock where queue = $1 and task = any($2::text[])")
        self.extend_locks = statement(
            "extend_locks", "update SCHEMA.lock set until = $2 where queue = $1 and worker = any($3::text[])"
        )
        # Periodic tasks
        self.first_tick = statement(
            "first_tick",
            "insert into SCHEMA.periodic(queue, name, ticked, task) values ($1, $2, $3, $4) on conflict do nothing",
        )
        self.next_tick = statement(
            "next_tick",
            "update SCHEMA.periodic set ticked = $3, task = coalesce($4, task)"
            " where queue = $1 and name = $2 and ticked = $5 and not paused",
        )
        self.pause_periodic = statement(
            "pause_periodic",
            "insert into SCHEMA.periodic as p (queue, name, ticked, paused) values ($1, $2, $3, true)"
            " on conflict (queue, name) do update set ticked = $3, paused = true where not p.paused",
        )
        self.resume_periodic = statement(
            "resume_periodic",
            "update SCHEMA.periodic set ticked = $3, paused = false where queue = $1 and name = $2 and paused",
        )
        self.periodic_states = statement(
            "periodic_states", "select name, ticked, paused, task from SCHEMA.periodic where queue = $1"
        )
        self._add_queries(statement)
        # Maintenance
        self.prune = statement(
            "prune",
            "with old as materialized (select seq from SCHEMA.task where queue = $1 and ended < $2"
            " and state = any($4::text[]) order by ended, seq limit $3 for update skip locked),"
            " gone as (delete from SCHEMA.task t using old where t.seq = old.seq returning t.id),"
            " said as"
            " (delete from SCHEMA.revocation r using gone where r.key = gone.id and r.queue = $1 and not r.function)"
            " select count(*) from gone",
        )
        self.flush = [
            statement(f"flush_{table}", f"delete from SCHEMA.{table} where queue = $1")
            for table in ("task", "revocation", "lock", "periodic", "awaits")
        ]
        # Notifications: the parameters are the queue, the channel, the channel's name for the server, and this process.
        self.notify = statement(
            "notify",
            "select pg_notify($3, '') where exists (select from SCHEMA.listener"
            " where queue = $1 and channel = $2 and process <> $4 and until > now())",
        )
        self.notify_all = Statement(b"notify_all", b"select pg_notify($1, '')")
        self.listen = statement(
            "listen",
            "insert into SCHEMA.listener(queue, channel, process, until)"
            " values ($1, $2, $3, now() + make_interval(secs => $4))"
            " on conflict (queue, channel, process) do update set until = excluded.until",
        )
        self.unlisten = statement(
            "unlisten",
            "delete from SCHEMA.listener where queue = $1 and (channel = $2 and process = $3 or until < now())",
        )

    def _add_queries(self, statement: Callable[[str, str], Statement]) -> None:
        self.get = statement("get", "select FIELDS from SCHEMA.task t where id = $2 and queue + 0 = $1")
        self.history = statement("history", "select history from SCHEMA.task where id = $2 and queue + 0 = $1")
        self.histories = statement(
            "histories", "select seq, history from SCHEMA.task where seq = any($2::int8[]) and queue = $1"
        )
        self.set_histories = statement(
            "set_histories",
            "update SCHEMA.task t set history = h.history from unnest($2::int8[], $3::text[]) as h(seq, history)"
            " where t.seq = h.seq and t.queue = $1",
        )
        self.status = statement("status", "select state, result from SCHEMA.task where id = $2 and queue + 0 = $1")
        self.statuses = statement(
            "statuses", "select id, state, result from SCHEMA.task where id = any($2::text[]) and queue + 0 = $1"
        )
        self.allow_seqscan = statement("allow_seqscan", "select set_config('enable_seqscan', 'on', true) where $1 > 0")
        self.find_ids = statement(
            "find_ids",
            "select id from SCHEMA.task where queue = $1 and (starts_with(id, $2) or right(id, length($2)) = $2)"
            " order by seq desc limit $3",
        )
        self.next_due = statement(
            "next_due",
            "select exists (select from SCHEMA.task where queue = $1 and rank is not null),"
            " (select due from SCHEMA.task where queue = $1 and due is not null order by due limit 1),"
            " (select min(lease) from SCHEMA.task where queue = $1 and lease is not null"
            f" and state in ({_WAITING}))",
        )
        self.next_not_skipped = statement(
            "next_not_skipped",
            f"select bool_or(name <> all($2::text[]) or rank = {REVOKED_RANK}), min(expires) filter (where attempt = 0)"
            " from SCHEMA.task where queue = $1 and rank is not null",
        )

    def insert(
        self, queue: int, tasks: Sequence[Task], moves: Sequence[Move], places: Sequence[Visibility], *, if_new: bool
    ) -> Command:
        """Insert tasks, and return their `seq`; `moves`: their first moves.

        `if_new`: insert none, and return none, if an id is taken or was revoked in advance. Otherwise leave out tasks
        whose ids are taken, and return the ids with the `seq`.
        """
        columns: list[_Column] = [
            (text_array, [task.id for task in tasks]),
            (text_array, [task.name for task in tasks]),
            (bytes_array, [task.payload for task in tasks]),
            (text_array, [move.states[-1].name for move in moves]),
            (number_array, [task.eta for task in tasks]),
            (number_array, [task.expires for task in tasks]),
            (number_array, [task.priority for task in tasks]),
            (number_array, [task.retries for task in tasks]),
            (text_array, [policy_text(task.retry) for task in tasks]),
            (number_array, [task.timeout for task in tasks]),
            (text_array, [move.worker for move in moves]),
            (number_array, [move.lease for move in moves]),
            (number_array, [rank for rank, _ in places]),
            (number_array, [due for _, due in places]),
            (text_array, [move.history for move in moves]),
            (number_array, [move.at for move in moves]),
            (text_array, [None if task.step is None else step_text(task.step) for task in tasks]),
        ]
        return (self._insert_if_new if if_new else self._insert)[len(tasks) != 1], _parameters(queue, columns)

    def move(self, queue: int, moved: Sequence[tuple[Task, Move, Visibility]]) -> Command:
        """Move tasks whose fences match; return the positions in `moved` of those that were moved, from 1 on."""
        tasks, moves = [task for task, _, _ in moved], [move for _, move, _ in moved]
        fences = zip(*(task.fence for task in tasks), strict=True)
        columns: list[_Column] = [
            *cast("list[_Column]", list(zip(_FENCE_ENCODERS, fences, strict=True))),
            (text_array, [move.states[-1].name for move in moves]),
            (number_array, [move.eta for move in moves]),
            (number_array, [move.retries for move in moves]),
            (number_array, [move.attempt for move in moves]),
            (number_array, [move.interruptions for move in moves]),
            (text_array, [move.worker for move in moves]),
            (number_array, [len(move.states) for move in moves]),
            (number_array, [move.lease for move in moves]),
            (number_array, [rank for _, _, (rank, _) in moved]),
            (number_array, [due for _, _, (_, due) in moved]),
            (number_array, [move.ended for move in moves]),
            (bytes_array, [move.result for move in moves]),
            (text_array, [move.history for move in moves]),
        ]
        return self._move[len(moved) != 1], _parameters(queue, columns)

    def report(self, queue: int, reports: Sequence[Report]) -> Command:
        """Tell tasks that wait for others of the ends of these."""
        return self._report, [
            queue,
            text_array([report.dependent for report in reports]),
            text_array([report.cause for report in reports]),
            number_array([report.completed for report in reports]),
            number_array([report.at for report in reports]),
        ]

    def count_awaited(self, queue: int, tasks: Sequence[tuple[str, int]]) -> Command:
        """Store how many ends tasks wait for. `tasks`: id and number."""
        ids, numbers = text_array([task_id for task_id, _ in tasks]), number_array([number for _, number in tasks])
        return self._count_awaited, [queue, ids, numbers]

    def rank(self, queue: int, places: Sequence[tuple[int, Visibility]]) -> Command:
        """Store when claims find tasks that no worker holds. `places`: for each `seq` rank and due time."""
        places = sorted(places)
        return self._set_ranks, [
            queue,
            number_array([seq for seq, _ in places]),
            number_array([rank for _, (rank, _) in places]),
            number_array([due for _, (_, due) in places]),
        ]


def _one(columns: str) -> str:
    """Return a query for one row of plain parameters; costs the server a third of a query with lists."""
    fields = [column.split() for column in columns.split(", ")]
    values = ", ".join(f"${number}::{kind} as {name}" for number, (name, kind) in enumerate(fields, 2))
    return f"(select {values}, 1 as place)"


def _many(columns: str) -> str:
    """Return a query for rows, with a list for each column."""
    fields = [column.split() for column in columns.split(", ")]
    lists = ", ".join(f"${number}::{kind}[]" for number, (_, kind) in enumerate(fields, 2))
    names = ", ".join(name for name, _ in fields)
    return f"(select * from unnest({lists}) with ordinality as rows({names}, place))"


def _parameters(queue: int, columns: Sequence[_Column]) -> list[Value]:
    if len(columns[0][1]) == 1:
        return [queue, *(values[0] for _, values in columns)]
    return [queue, *(encode(values) for encode, values in columns)]
