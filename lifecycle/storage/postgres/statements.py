"""The statements of the PostgreSQL adapter, and how tasks and moves go into them and come out."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import msgspec

from lifecycle.core.policies import WAITING, Move, Revocation
from lifecycle.core.table import EXECUTING
from lifecycle.core.task import FENCE, NO_DELAY, RetryPolicy, Task, policy_fields
from lifecycle.storage.postgres.schema import COLUMNS, quoted
from lifecycle.storage.postgres.session import Command, Statement, Value, blobs, numbers, texts

__all__ = ["Rank", "Sql", "ranks", "revocation", "task"]

log = logging.getLogger("lifecycle.storage")

_Column = tuple[Callable[[Any], Value], Sequence[Any]]
"""How a list of values is written, and the values."""
Rank = tuple[int | None, float | None]
"""What `policies.visibility` says."""

_NEW: Final = (
    "id text, name text, payload bytea, state text, eta float8, expires float8, priority int8, retries int8,"
    " policy text, timeout float8, worker text, lease float8, rank int8, history text"
)
_INSERT: Final = (
    "insert into SCHEMA.task(queue, id, name, payload, state, eta, expires, priority, retries, policy, timeout,"
    " attempt, interruptions, worker, version, lease, rank, history)"
    " select $1::int, id, name, payload, state, eta, expires, priority, retries, policy, timeout, 0, 0, worker, 1,"
    " lease, rank, history from NEW as new"
)
_MOVED: Final = (
    "was_id text, was_seq int8, was_version int8, was_state text, was_worker text, state text, eta float8, retries int8,"
    " attempt int8, interruptions int8, worker text, steps int8, lease float8, rank int8, due float8, ended float8,"
    " result bytea, history text"
)
# The one statement that changes a state. The guard is in it: a row that has moved on is not found.
_MOVE: Final = (
    "update SCHEMA.task t set state = m.state, eta = m.eta, retries = m.retries, attempt = m.attempt,"
    " interruptions = m.interruptions, worker = m.worker, version = t.version + m.steps, lease = m.lease,"
    " rank = m.rank, due = m.due, ended = m.ended, canceling = t.canceling and m.ended is null,"
    " result = coalesce(m.result, t.result), history = t.history || m.history from MOVED as m"
    f" where t.queue = $1 and {' and '.join(f't.{name} = m.was_{name}' for name in FENCE)} returning m.place"
)
_OF_FENCE: Final = texts, numbers, numbers, texts, texts
"""How lists of the values of `Task.fence` are written."""
_WAITING: Final = ", ".join(f"'{state}'" for state in sorted(WAITING))


class Sql:
    """The statements, for one schema. The first parameter of each is the queue's number."""

    def __init__(self, schema: str) -> None:
        self.schema = schema

        def made(name: str, sql: str) -> Statement:
            fields = ", ".join(f"t.{column}" for column in COLUMNS)
            return Statement(name.encode(), sql.replace("SCHEMA", quoted(schema)).replace("FIELDS", fields).encode())

        self.queue = made("queue", "select id from SCHEMA.queue where name = $1")
        # Births. The first makes all or none, and none if there is anything to be looked at more closely.
        new = (
            f"{_INSERT} where not exists (select from SCHEMA.task where id = any(IDS) and queue + 0 = $1)"
            " and not exists (select from SCHEMA.revocation where key = any(IDS) and queue = $1 and not function)"
            " returning seq"
        )
        self._insert_new = [
            made("insert_one", new.replace("NEW", _one(_NEW)).replace("IDS", "array[$2::text]")),
            made("insert_many", new.replace("NEW", _many(_NEW)).replace("IDS", "$2::text[]")),
        ]
        careful = f"{_INSERT} on conflict do nothing returning seq, id"
        self._insert = [
            made("insert_one_of_all", careful.replace("NEW", _one(_NEW))),
            made("insert_many_of_all", careful.replace("NEW", _many(_NEW))),
        ]
        self._move = [
            made("move_one", _MOVE.replace("MOVED", _one(_MOVED))),
            made("move_many", _MOVE.replace("MOVED", _many(_MOVED))),
        ]
        # Claims
        self.foremost = made("foremost", "select * from SCHEMA.claimable($1, $2, $3, $4)")
        self.spend = made("spend", "delete from SCHEMA.revocation where queue = $1 and function and key = $2 and once")
        self.rank = made(
            "rank",
            "update SCHEMA.task t set lease = null, rank = r.rank, due = r.due"
            " from unnest($2::int8[], $3::int8[], $4::float8[]) as r(seq, rank, due)"
            " where t.seq = r.seq and t.queue = $1",
        )
        # Rows that are going to be changed. Always locked by age, so that no two can wait for each other.
        self.lock_rows = made(
            "lock_rows",
            "select FIELDS from SCHEMA.task t where seq = any($2::int8[]) and queue = $1 order by seq for update",
        )
        self.lock_row = made("lock_row", "select FIELDS from SCHEMA.task t where id = $2 and queue + 0 = $1 for update")
        self.lapsed = made(
            "lapsed",
            "select FIELDS from SCHEMA.task t where queue = $1 and lease <= $2 order by lease, seq limit $3"
            " for update skip locked",
        )
        self.any_lapsed = made("any_lapsed", "select 1 from SCHEMA.task where queue = $1 and lease <= $2 limit 1")
        self.extend = made(
            "extend",
            "with mine as materialized (select seq from SCHEMA.task where queue = $1 and lease is not null"
            " and worker = any($3::text[])),"
            " held as materialized (select t.seq from (select seq from mine order by seq offset 0) m"
            " join SCHEMA.task t on t.seq = m.seq and t.lease + 0 is not null and t.worker = any($3::text[])"
            " for update of t)"
            " update SCHEMA.task t set lease = $2 from held where t.seq = held.seq",
        )
        # Calling off
        self.cancel = made(
            "call_off",
            f"update SCHEMA.task set canceling = true where id = $2 and queue + 0 = $1 and state = '{EXECUTING}'",
        )
        self.canceling = made(
            "canceling",
            "select id from SCHEMA.task where queue = $1 and canceling and worker = any($2::text[])"
            f" and state = '{EXECUTING}'",
        )
        # Revocations
        self.own = made(
            "own",
            "select key, until, once from SCHEMA.revocation"
            " where key = any($2::text[]) and queue = $1 and not function",
        )
        self.own_of_lapsed = made(
            "own_of_lapsed",
            "select r.key, r.until, r.once from SCHEMA.task t join SCHEMA.revocation r"
            " on r.key = t.id and r.queue + 0 = $1 and not r.function where t.queue = $1 and t.lease <= $2",
        )
        self.revocation = made(
            "revocation", "select until, once from SCHEMA.revocation where queue = $1 and function = $2 and key = $3"
        )
        self.say = made(
            "say",
            "insert into SCHEMA.revocation(queue, function, key, until, once) values ($1, $2, $3, $4, $5)"
            " on conflict (queue, function, key) do update set until = excluded.until, once = excluded.once",
        )
        self.forget = made("forget", "delete from SCHEMA.revocation where queue = $1 and function = $2 and key = $3")
        self.forget_own = made(
            "forget_own", "delete from SCHEMA.revocation where key = any($2::text[]) and queue = $1 and not function"
        )
        # Locks
        self.lock = made(
            "lock",
            "insert into SCHEMA.lock(queue, name, owner, until, worker, task) values ($1, $2, $3, $4, $5, $6)"
            " on conflict (queue, name) do update set owner = excluded.owner, until = excluded.until,"
            " worker = excluded.worker, task = excluded.task where lock.until <= $7",
        )
        self.unlock = made("unlock", "delete from SCHEMA.lock where queue = $1 and name = $2 and owner = $3")
        self.locks = made(
            "locks", "select name, owner, until, worker, task from SCHEMA.lock where queue = $1 and until > $2"
        )
        self.flush_locks = made(
            "flush_locks", "delete from SCHEMA.lock where queue = $1 and ($2::text[] is null or name = any($2::text[]))"
        )
        self.free_locks = made("free_locks", "delete from SCHEMA.lock where queue = $1 and task = any($2::text[])")
        self.extend_locks = made(
            "extend_locks", "update SCHEMA.lock set until = $2 where queue = $1 and worker = any($3::text[])"
        )
        # Look-ups
        self.get = made("get", "select FIELDS from SCHEMA.task t where id = $2 and queue + 0 = $1")
        self.history = made("history", "select history from SCHEMA.task where id = $2 and queue + 0 = $1")
        self.histories = made(
            "histories", "select seq, history from SCHEMA.task where seq = any($2::int8[]) and queue = $1"
        )
        self.status = made("status", "select state, result from SCHEMA.task where id = $2 and queue + 0 = $1")
        self.whole = made("whole", "select set_config('enable_seqscan', 'on', true) where $1 > 0")
        self.counts = made("counts", "select state, count(*) from SCHEMA.task where queue = $1 group by state")
        self.tasks = made(
            "tasks",
            "select FIELDS from SCHEMA.task t where queue = $1 and seq < coalesce($2, 9223372036854775807)"
            " and ($3::text[] is null or state = any($3::text[])) order by seq desc limit $4",
        )
        self.next_due = made(
            "next_due",
            "select exists (select from SCHEMA.task where queue = $1 and rank is not null),"
            " (select due from SCHEMA.task where queue = $1 and due is not null order by due limit 1),"
            " (select min(lease) from SCHEMA.task where queue = $1 and lease is not null"
            f" and state in ({_WAITING}))",
        )
        # Keeping house
        self.prune = made(
            "prune",
            "with old as materialized (select seq from SCHEMA.task where queue = $1 and ended < $2"
            " order by ended, seq limit $3 for update skip locked),"
            " gone as (delete from SCHEMA.task t using old where t.seq = old.seq returning t.id),"
            " said as"
            " (delete from SCHEMA.revocation r using gone where r.key = gone.id and r.queue = $1 and not r.function)"
            " select count(*) from gone",
        )
        self.flush = [
            made(f"flush_{table}", f"delete from SCHEMA.{table} where queue = $1")
            for table in ("task", "revocation", "lock")
        ]
        # News: the parameters are the queue, the channel, its name for the server, and who speaks.
        self.notify = made(
            "notify",
            "select pg_notify($3, '') where exists (select from SCHEMA.listener"
            " where queue = $1 and channel = $2 and process <> $4 and until > now())",
        )
        self.notify_all = Statement(b"notify_all", b"select pg_notify($1, '')")
        self.listen = made(
            "listen",
            "insert into SCHEMA.listener(queue, channel, process, until)"
            " values ($1, $2, $3, now() + make_interval(secs => $4))"
            " on conflict (queue, channel, process) do update set until = excluded.until",
        )
        self.unlisten = made(
            "unlisten",
            "delete from SCHEMA.listener where queue = $1 and (channel = $2 and process = $3 or until < now())",
        )

    def births(
        self, queue: int, tasks: Sequence[Task], made: Sequence[Move], places: Sequence[int | None], *, new: bool
    ) -> Command:
        """Make tasks; `places`: their ranks. `new`: none, if there is anything to be looked at more closely."""
        columns: list[_Column] = [
            (texts, [task.id for task in tasks]),
            (texts, [task.name for task in tasks]),
            (blobs, [task.payload for task in tasks]),
            (texts, [move.states[-1].name for move in made]),
            (numbers, [task.eta for task in tasks]),
            (numbers, [task.expires for task in tasks]),
            (numbers, [task.priority for task in tasks]),
            (numbers, [task.retries for task in tasks]),
            (texts, [_policy_text(task.retry) for task in tasks]),
            (numbers, [task.timeout for task in tasks]),
            (texts, [move.worker for move in made]),
            (numbers, [move.lease for move in made]),
            (numbers, places),
            (texts, [move.history for move in made]),
        ]
        return (self._insert_new if new else self._insert)[len(tasks) != 1], _packed(queue, columns)

    def moves(self, queue: int, made: Sequence[tuple[Task, Move, Rank]]) -> Command:
        """Move tasks, those that are still as their movers know them; of those the places in `made`, from 1 on."""
        tasks, steps = [task for task, _, _ in made], [move for _, move, _ in made]
        fences = zip(*(task.fence for task in tasks), strict=True)
        columns: list[_Column] = [
            *cast("list[_Column]", list(zip(_OF_FENCE, fences, strict=True))),
            (texts, [move.states[-1].name for move in steps]),
            (numbers, [move.eta for move in steps]),
            (numbers, [move.retries for move in steps]),
            (numbers, [move.attempt for move in steps]),
            (numbers, [move.interruptions for move in steps]),
            (texts, [move.worker for move in steps]),
            (numbers, [len(move.states) for move in steps]),
            (numbers, [move.lease for move in steps]),
            (numbers, [rank for _, _, (rank, _) in made]),
            (numbers, [due for _, _, (_, due) in made]),
            (numbers, [move.ended for move in steps]),
            (blobs, [move.result for move in steps]),
            (texts, [move.history for move in steps]),
        ]
        return self._move[len(made) != 1], _packed(queue, columns)


def _one(columns: str) -> str:
    """One row, of plain parameters: a third of what lists cost the server."""
    fields = [column.split() for column in columns.split(", ")]
    values = ", ".join(f"${number}::{kind} as {name}" for number, (name, kind) in enumerate(fields, 2))
    return f"(select {values}, 1 as place)"


def _many(columns: str) -> str:
    """Rows, of a list for each column."""
    fields = [column.split() for column in columns.split(", ")]
    lists = ", ".join(f"${number}::{kind}[]" for number, (_, kind) in enumerate(fields, 2))
    names = ", ".join(name for name, _ in fields)
    return f"(select * from unnest({lists}) with ordinality as rows({names}, place))"


def _packed(queue: int, columns: Sequence[_Column]) -> list[Value]:
    if len(columns[0][1]) == 1:
        return [queue, *(values[0] for _, values in columns)]
    return [queue, *(pack(values) for pack, values in columns)]


def ranks(queue: int, places: Sequence[tuple[int, Rank]]) -> list[Value]:
    """The parameters of `Sql.rank`: which row (`seq`) gets which rank."""
    places = sorted(places)
    return [
        queue,
        numbers([seq for seq, _ in places]),
        numbers([rank for _, (rank, _) in places]),
        numbers([due for _, (_, due) in places]),
    ]


def revocation(until: float | None, once: bool | None) -> Revocation | None:
    """The revocation in a row, if there is one in it."""
    return None if once is None else Revocation(until, once)


def task(row: Sequence[Any]) -> Task:
    """The task in a row that begins with `COLUMNS`: they stand in the order of its fields."""
    retry = NO_DELAY if row[8] is None else _policy(row[8])
    return Task(*row[:8], retry, *row[9:17])  # type: ignore[call-arg]  # mypy counts each * as any number


def _policy_text(policy: RetryPolicy) -> str | None:
    return None if policy is NO_DELAY else msgspec.json.encode(policy_fields(policy)).decode()


def _policy(text: str) -> RetryPolicy:
    try:
        return msgspec.json.decode(text, type=RetryPolicy)
    except msgspec.MsgspecError as error:  # changed by hand: one such row must not stop the claims of all others
        log.warning("a retry policy in the store cannot be read, its task is retried without a delay: %s", error)
        return NO_DELAY
