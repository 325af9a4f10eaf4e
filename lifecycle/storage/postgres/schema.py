"""The PostgreSQL schema: tables, constraints and triggers, and the migrations from version to version.

States and steps are filled in from the table of the lifecycle. The database refuses all other states and steps, also in
SQL that is typed by hand.
"""

from typing import Final

from lifecycle.core.table import LIFECYCLE, Kind

__all__ = ["BLOCK_BITS", "COLUMNS", "FEW", "MIGRATIONS", "VERSIONS", "migration", "quoted"]

_OLDEST_COLUMNS: Final = (
    "id text, name text, payload bytea, state text, eta float8, expires float8, priority int8, retries int8,"
    " policy text, timeout float8, attempt int8, interruptions int8, worker text, version int8, lease float8, seq int8"
)
_SECOND_COLUMNS: Final = _OLDEST_COLUMNS + ", canceling boolean"
_COLUMNS: Final = _SECOND_COLUMNS + ", enqueued float8"


def _names(columns: str) -> tuple[str, ...]:
    return tuple(column.split()[0] for column in columns.split(", "))


COLUMNS: Final = _names(_COLUMNS)
"""Columns of a task, in the order of its fields."""

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

_FORGETTING: Final = _CLAIMABLE.replace("create function", "create or replace function").replace(
    "then\n    return query",
    """then
    if exists (select from SCHEMA.summary where block = any(array(select unnest(picked) >> BLOCK_BITS))) then
      perform SCHEMA.forget_blocks(picked);
    end if;
    return query""",
)

# Summaries of blocks of 1,024 tasks (`lifecycle.storage.postgres.summary`).
_FIFTH: Final = """
create table SCHEMA.summary(
  block bigint primary key,  -- its tasks are those whose `seq >> BLOCK_BITS` is this
  ticket bigint not null,    -- the attempt that makes it
  made boolean not null default false
);

create table SCHEMA.summary_part(
  queue int not null,
  name text collate "C" not null,   -- '=' and the name of a function; '': tasks of all functions
  state text collate "C" not null,
  block bigint not null,
  number bigint not null,
  latest float8,                    -- time of the latest enqueueing
  places bigint[],                  -- the numbers of the tasks; null: they are more than FEW
  primary key (queue, name, state, block)
);

create index summary_part_block on SCHEMA.summary_part(block);

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
      'grant %1$s on %2$I.periodic, %2$I.summary, %2$I.summary_part to %3$s',
      granted.privilege, granted.name, granted.grantee
    );
  end loop;
end $$;

-- A summary is deleted in the transaction that moves a task of its block. Only tasks that are not held are in
-- summaries: new tasks, and moves of running tasks, cost nothing. Claims forget the blocks of their tasks themselves,
-- with one statement for a batch.
create function SCHEMA.forget_blocks(numbers bigint[]) returns void language plpgsql as $$
declare
  blocks bigint[] := array(select distinct unnest(numbers) >> BLOCK_BITS);
begin
  delete from SCHEMA.summary where block = any(blocks);  -- waits for who is making a summary, and then sees its parts
  if found then
    delete from SCHEMA.summary_part where block = any(blocks);
  end if;
end $$;

create function SCHEMA.forget_block_of_task() returns trigger language plpgsql as $$
begin
  if exists (select from SCHEMA.summary where block = old.seq >> BLOCK_BITS) then
    perform SCHEMA.forget_blocks(array[old.seq]);
  end if;
  return null;
end $$;

create function SCHEMA.forget_blocks_of_gone() returns trigger language plpgsql as $$
begin
  if tg_op = 'TRUNCATE' then
    delete from SCHEMA.summary;
    delete from SCHEMA.summary_part;
  else
    perform SCHEMA.forget_blocks(array(select seq from gone));
  end if;
  return null;
end $$;

create trigger task_leaves_block after update of state, lease on SCHEMA.task for each row
when (old.lease is null and (new.lease is not null or new.state <> old.state) and new.state not in (RUNNING))
execute function SCHEMA.forget_block_of_task();

create trigger task_gone_from_block after delete on SCHEMA.task referencing old table as gone
for each statement execute function SCHEMA.forget_blocks_of_gone();

create trigger tasks_gone after truncate on SCHEMA.task
for each statement execute function SCHEMA.forget_blocks_of_gone();

-- The blocks that could have a summary, and have none, up to a number. The newest block gets none, as tasks are added.
create function SCHEMA.blocks_without_summary(up_to int) returns setof bigint language plpgsql stable as $$
declare
  held bigint[] := array(select distinct seq >> BLOCK_BITS from SCHEMA.task where lease is not null);
  newest bigint := (select seq >> BLOCK_BITS from SCHEMA.task order by seq desc limit 1);
  open_space record;
  place bigint;
  found_count int := 0;
begin
  for open_space in
    select low, high from (
      select s.block + 1 as low, lead(s.block, 1, newest) over (order by s.block) as high
      from (select block from SCHEMA.summary where made union all select -1) s
    ) spaces where low < high order by low
  loop
    place := open_space.low;
    loop
      place := (
        select seq >> BLOCK_BITS from SCHEMA.task
        where seq >= place << BLOCK_BITS and seq < open_space.high << BLOCK_BITS order by seq limit 1
      );
      exit when place is null;
      if place <> all(held) then
        return next place;
        found_count := found_count + 1;
        if found_count = up_to then return; end if;
      end if;
      place := place + 1;
    end loop;
  end loop;
end $$;

-- A page of tasks, the newest first: those that summaries promise, and those that no summary counts. Each block that a
-- summary promises has at least one of them, unless it is cut by `below`.
create function SCHEMA.newest_tasks(
  which int, below bigint, wanted_states text[], page_size bigint, wanted_name text, since float8
) returns table (ROW) language plpgsql stable as $$
#variable_conflict use_column
declare
  part_name text := coalesce('=' || wanted_name, '');
  missing bigint := page_size;
  got bigint;
  span record;
begin
  for span in
    with promised as (
      select block, array_agg(unnested.place) as places, bool_or(p.places is null) as many from (
        select block, places from SCHEMA.summary_part
        where queue = which and name = part_name and state = any(wanted_states) and block <= (below - 1) >> BLOCK_BITS
        and (since is null or latest >= since)
      ) p left join lateral unnest(p.places) as unnested(place) on true
      group by block order by block desc limit least(page_size, 1000000000) + 1
    ), spaces as (
      select s.block + 1 as low, lead(s.block, 1, END_BLOCK) over (order by s.block) as high
      from (select block from SCHEMA.summary where made union all select -1) s
    )
    select block << BLOCK_BITS as low, (block + 1) << BLOCK_BITS as high, case when not many then places end as places
    from promised
    union all
    select low << BLOCK_BITS, high << BLOCK_BITS, null from spaces where low < high and low << BLOCK_BITS < below
    order by low desc
  loop
    if span.places is null then
      return query select FIELDS from SCHEMA.task t
      where t.seq >= span.low and t.seq < least(span.high, below) and t.queue + 0 = which
      and t.state = any(wanted_states) and (wanted_name is null or t.name = wanted_name)
      and (since is null or t.enqueued >= since) order by t.seq desc limit missing;
    else
      return query select FIELDS from SCHEMA.task t
      where t.seq = any(span.places) and t.seq < below and (since is null or t.enqueued >= since)
      order by t.seq desc limit missing;
    end if;
    get diagnostics got = row_count;
    missing := missing - got;
    exit when missing <= 0;
  end loop;
end $$;

-- The functions that claim tasks, with one more statement: they forget the blocks of the tasks.
"""


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


def _literals(*names: str) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _filled(script: str, columns: str) -> str:
    """Return a script with states, steps and the columns of a task filled in."""
    steps = [(source, target.name) for source, targets in LIFECYCLE.steps.items() for target in sorted(targets)]
    parts = {
        "WAITING": _literals(*(state.name for state in LIFECYCLE.of_kind(Kind.WAITING))),
        "RUNNING": _literals(*(state.name for state in LIFECYCLE.of_kind(Kind.RUNNING))),
        "BIRTHS": _literals(*(target for source, target in steps if source is None)),
        "STEPS": _literals(*(f"{source}>{target}" for source, target in steps if source is not None)),
        "ROW": columns,
        "FIELDS": ", ".join(f"t.{name}" for name in _names(columns)),
        "BLOCK_BITS": str(BLOCK_BITS),
        "END_BLOCK": str((2**63 - 1) >> BLOCK_BITS),
        "FEW": str(FEW),
    }
    for name, part in parts.items():
        script = script.replace(name, part)
    return script


MIGRATIONS: list[str] = [
    _filled(_FIRST.replace("CLAIMABLE", _CLAIMABLE), _OLDEST_COLUMNS),
    _filled(_SECOND, _SECOND_COLUMNS),
    _filled(_THIRD, _COLUMNS),
    _PERIODIC,
    _filled(_FIFTH, _COLUMNS)
    + _filled(_FORGETTING.replace("SCHEMA.foremost", "SCHEMA.claimed_next"), _COLUMNS)
    + _filled(_FORGETTING.replace("SCHEMA.foremost", "SCHEMA.claimable"), _SECOND_COLUMNS)
    + _filled(_FORGETTING, _OLDEST_COLUMNS),
]
"""Script n makes version n + 1 from version n. A released script never changes. ``SCHEMA``: the quoted schema name."""


def quoted(name: str) -> str:
    """Return a quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def migration(number: int, schema: str) -> str:
    """Return the script that makes this version, for a schema of that name."""
    name = "'" + schema.replace("'", "''") + "'"
    return MIGRATIONS[number - 1].replace("NAME_OF_SCHEMA", name).replace("SCHEMA", quoted(schema))
