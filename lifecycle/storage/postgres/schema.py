"""The PostgreSQL schema: tables, constraints and triggers, and the migrations from version to version.

States and steps are filled in from the table of the lifecycle. The database refuses all other states and steps, also in
SQL that is typed by hand.
"""

from typing import Final

from lifecycle.core.policies import REVOKED_RANK
from lifecycle.core.table import ENQUEUE, LIFECYCLE, PENDING, SKIP, Kind
from lifecycle.storage.postgres.schema_of_summaries import PAGE_FUNCTION, SUMMARIES
from lifecycle.storage.postgres.schema_of_workflows import WORKFLOWS

__all__ = ["BLOCK_BITS", "COLUMNS", "FEW", "MIGRATIONS", "VERSIONS", "migration", "quoted"]

_OLDEST_COLUMNS: Final = (
    "id text, name text, payload bytea, state text, eta float8, expires float8, priority int8, retries int8,"
    " policy text, timeout float8, attempt int8, interruptions int8, worker text, version int8, lease float8, seq int8"
)
_SECOND_COLUMNS: Final = _OLDEST_COLUMNS + ", canceling boolean"
_THIRD_COLUMNS: Final = _SECOND_COLUMNS + ", enqueued float8"
_COLUMNS: Final = _THIRD_COLUMNS + ", step text, verdict text"


def _names(columns: str) -> tuple[str, ...]:
    return tuple(column.split()[0] for column in columns.split(", "))


COLUMNS: Final = _names(_COLUMNS)
"""Columns of a task, in the order of its fields; the last two make one field."""

BLOCK_BITS: Final = 10
"""A block is the tasks whose `seq` differ only in so many bits: 1,024 numbers. Part of the schema: never changed."""
FEW: Final = 16
"""A part of a summary lists the numbers of up to so many tasks."""

VERSIONS: Final = """
create table if not exists SCHEMA.migration(version int primary key, made timestamptz not null default now());
"""
"""Table of the migrations that were made; it exists before the first one."""

_FIRST: Final = """
create table SCHEMA.queue(id int generated always as identity primary key, name text collate "C" not null unique);

create table SCHEMA.task(
  seq bigint generated always as identity primary key,  -- age; never reused: an old copy would pass for a new task
  queue int not null references SCHEMA.queue(id),
  id text collate "C" not null,
  name text collate "C" not null,
  payload bytea not null,
  state text collate "C" not null,
  eta float8,
  expires float8,
  priority bigint not null,
  retries bigint not null check (retries >= 0),
  policy text,                                -- fields of the retry policy that are not default, as JSON
  timeout float8,
  attempt bigint not null check (attempt >= 0),
  interruptions bigint not null check (interruptions >= 0),
  worker text collate "C" not null,
  version bigint not null check (version > 0),  -- number of lines in the history
  lease float8,                               -- end of the lease
  rank bigint,                                -- a claim considers it now: higher first
  due float8,                                 -- time when it gets a rank
  ended float8,                               -- time when it came to rest
  result bytea,
  history text collate "C" not null,
  -- A waiting task is held, or has a rank or a due time; a running task is held; a resting task has ended.
  constraint one_place check (num_nonnulls(lease, rank, due, ended) = 1 and case
    when state in (WAITING) then ended is null
    when state in (RUNNING) then lease is not null
    else ended is not null end)
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

-- Each condition fits one index, so that no statement depends on the server's statistics: a row is found by `id` and
-- `queue + 0`, or by `seq`; a condition on `queue` fits only the indexes that follow.
create unique index task_id on SCHEMA.task(id, (queue + 0));
-- Partial indexes: a finished task costs a claim nothing.
create index task_ready on SCHEMA.task(queue, rank desc, seq) where rank is not null;
create index task_due on SCHEMA.task(queue, due, seq) where due is not null;
create index task_held on SCHEMA.task(queue, lease, seq) where lease is not null;
create index task_ended on SCHEMA.task(queue, ended, seq) where ended is not null;

create table SCHEMA.revocation(
  queue int not null references SCHEMA.queue(id), function boolean not null, key text collate "C" not null,
  until float8, once boolean not null,
  primary key (key, queue, function)
);

create table SCHEMA.lock(
  queue int not null references SCHEMA.queue(id), name text collate "C" not null, owner text collate "C" not null,
  until float8 not null, worker text collate "C", task text collate "C",
  primary key (queue, name)
);

-- Registered listeners: commits with a notification wait for one another, so none is sent unless a process listens.
create unlogged table SCHEMA.listener(
  queue int not null, channel text not null, process text not null, until timestamptz not null,
  primary key (queue, channel, process)
);

CLAIMABLE

-- The steps that one commit may make. A legal write costs no more than the conditions of these triggers.
create function SCHEMA.refuse() returns trigger language plpgsql as $$
begin
  raise exception using errcode = 'check_violation', message = 'illegal transition: ' || case tg_op
    when 'INSERT' then 'no task is born ' || new.state
    else 'from ' || old.state || ' no step leads to ' || new.state end;
end $$;

create trigger task_born before insert on SCHEMA.task for each row
when (new.state not in (BIRTHS)) execute function SCHEMA.refuse();

create trigger task_moves before update of state on SCHEMA.task for each row
when (old.state || '>' || new.state not in (STEPS)) execute function SCHEMA.refuse();
"""

_CLAIMABLE: Final = """\
-- The first tasks for a claim, locked, with their revocations. Tasks that another transaction has locked are left out.
-- Revocations are read after the tasks are locked, so that none that was committed before is missed.
create function SCHEMA.foremost(which int, moment float8, promote_limit int, claim_limit int)
returns table (ROW, own_until float8, own_once boolean, function_until float8, function_once boolean)
language plpgsql as $$
#variable_conflict use_column
declare picked bigint[];
begin
  if promote_limit > 0 and exists (select from SCHEMA.task where queue = which and due <= moment) then
    update SCHEMA.task t set rank = t.priority, due = null from (
      select seq from SCHEMA.task where queue = which and due <= moment
      order by due, seq limit promote_limit for update skip locked
    ) promoted where t.seq = promoted.seq;
  end if;
  picked := array(
    select seq from SCHEMA.task where queue = which and rank is not null
    order by rank desc, seq limit claim_limit for update skip locked
  );
  if picked <> '{}' then
    return query select FIELDS, o.until, o.once, f.until, f.once
    from SCHEMA.task t
    left join lateral (
      select until, once from SCHEMA.revocation where key = t.id and queue = which and not function offset 0
    ) o on true
    left join lateral (
      select until, once from SCHEMA.revocation where key = t.name and queue = which and function offset 0
    ) f on true
    where t.seq = any(picked) order by t.rank desc, t.seq;
  end if;
end $$;"""

# Requested cancellations. The function gets a new name: processes of the previous release go on calling the old one.
_SECOND: Final = f"""
alter table SCHEMA.task add column canceling boolean not null default false;

create index task_canceling on SCHEMA.task(queue, seq) where canceling;

{_CLAIMABLE.replace("SCHEMA.foremost", "SCHEMA.claimable")}
"""

# Time when the task was enqueued: the time in the first line of its history. The function gets a new name, as before.
_THIRD: Final = f"""
alter table SCHEMA.task add column enqueued float8;

update SCHEMA.task set enqueued = split_part(history, chr(9), 2)::float8;

{_CLAIMABLE.replace("SCHEMA.foremost", "SCHEMA.claimed_next")}
"""

_FORGET: Final = """then
    if exists (select from SCHEMA.summary where block = any(array(select unnest(picked) >> BLOCK_BITS))) then
      perform SCHEMA.forget_blocks(picked);
    end if;
    return query"""
_FORGETTING: Final = _CLAIMABLE.replace("create function", "create or replace function").replace(
    "then\n    return query", _FORGET
)


# States of periodic tasks.
_PERIODIC: Final = """
create table SCHEMA.periodic(
  queue int not null references SCHEMA.queue(id), name text collate "C" not null,
  ticked float8 not null,                   -- moment up to which ticks have been made
  paused boolean not null default false,
  task text collate "C",                    -- id of the task of the latest tick
  primary key (queue, name)
);
"""


# Steps of workflows. Functions whose rows have new columns get new names, as before.
_SIXTH: Final = f"""{WORKFLOWS}
{PAGE_FUNCTION.replace("SCHEMA.newest_tasks", "SCHEMA.page_of_tasks")}

{_FORGETTING.replace("SCHEMA.foremost", "SCHEMA.claim_first")}
"""

_GRANTS: Final = """\
-- Users of the table of tasks may use the tables that have come since, too.
do $$
declare granted record;
begin
  for granted in
    select g.privilege_type as privilege, coalesce(quote_ident(r.rolname), 'public') as grantee, n.nspname as name
    from pg_class c join pg_namespace n on n.oid = c.relnamespace cross join lateral aclexplode(c.relacl) g
    left join pg_roles r on r.oid = g.grantee
    where n.nspname = NAME_OF_SCHEMA and c.relname = 'task' and g.grantee <> c.relowner
  loop
    execute format(
      'grant %1$s on TABLES to %3$s',
      granted.privilege, granted.name, granted.grantee
    );
  end loop;
end $$;"""


def _literals(*names: str) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _filled(script: str, columns: str, *new_tables: str) -> str:
    """Return a script with states, steps and the columns of a task filled in; `new_tables`: those to be granted."""
    steps = [(source, target.name) for source, targets in LIFECYCLE.steps.items() for target in sorted(targets)]
    parts = {
        "GRANTS": _GRANTS.replace("TABLES", ", ".join(f"%2$I.{table}" for table in new_tables)),
        "WAITING": _literals(*(state.name for state in LIFECYCLE.of_kind(Kind.WAITING))),
        "RUNNING": _literals(*(state.name for state in LIFECYCLE.of_kind(Kind.RUNNING))),
        "BIRTHS": _literals(*(target for source, target in steps if source is None)),
        "STEPS": _literals(*(f"{source}>{target}" for source, target in steps if source is not None)),
        "ROW": columns,
        "FIELDS": ", ".join(f"t.{name}" for name in _names(columns)),
        "BLOCK_BITS": str(BLOCK_BITS),
        "END_BLOCK": str((2**63 - 1) >> BLOCK_BITS),
        "FEW": str(FEW),
        "PENDING_STATE": PENDING.name,
        "'SKIP'": f"'{SKIP}'",
        "'ENQUEUE'": f"'{ENQUEUE}'",
        "REVOKED_RANK": str(REVOKED_RANK),
    }
    for name, part in parts.items():
        script = script.replace(name, part)
    return script


MIGRATIONS: list[str] = [
    _filled(_FIRST.replace("CLAIMABLE", _CLAIMABLE), _OLDEST_COLUMNS),
    _filled(_SECOND, _SECOND_COLUMNS),
    _filled(_THIRD, _THIRD_COLUMNS),
    _PERIODIC,
    _filled(SUMMARIES.replace("PAGE", PAGE_FUNCTION), _THIRD_COLUMNS, "periodic", "summary", "summary_part")
    + _filled(_FORGETTING.replace("SCHEMA.foremost", "SCHEMA.claimed_next"), _THIRD_COLUMNS)
    + _filled(_FORGETTING.replace("SCHEMA.foremost", "SCHEMA.claimable"), _SECOND_COLUMNS)
    + _filled(_FORGETTING, _OLDEST_COLUMNS),
    _filled(_SIXTH, _COLUMNS, "awaits"),
]
"""Script n makes version n + 1 from version n. A released script never changes. ``SCHEMA``: the quoted schema name."""


def quoted(name: str) -> str:
    """Return a quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def migration(number: int, schema: str) -> str:
    """Return the script that makes this version, for a schema of that name."""
    name = "'" + schema.replace("'", "''") + "'"
    return MIGRATIONS[number - 1].replace("NAME_OF_SCHEMA", name).replace("SCHEMA", quoted(schema))
