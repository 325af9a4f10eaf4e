"""The PostgreSQL schema: its tables, what the database refuses by itself, and the way from one version to the next.

The states and the edges in it are filled in from the table of the lifecycle. The database refuses what is not in them,
hand-typed SQL included.
"""

from typing import Final

from lifecycle.core.table import LIFECYCLE, Kind

__all__ = ["COLUMNS", "MIGRATIONS", "VERSIONS", "migration", "quoted"]

_OLDEST_COLUMNS: Final = (
    "id text, name text, payload bytea, state text, eta float8, expires float8, priority int8, retries int8,"
    " policy text, timeout float8, attempt int8, interruptions int8, worker text, version int8, lease float8, seq int8"
)
_COLUMNS: Final = _OLDEST_COLUMNS + ", canceling boolean"


def _names(columns: str) -> tuple[str, ...]:
    return tuple(column.split()[0] for column in columns.split(", "))


COLUMNS: Final = _names(_COLUMNS)
"""What is read of a task, in the order of its fields."""

VERSIONS: Final = """
create table if not exists SCHEMA.migration(version int primary key, made timestamptz not null default now());
"""
"""Which migrations were made; this table has been there since before the first."""

_FIRST: Final = """
create table SCHEMA.queue(id int generated always as identity primary key, name text collate "C" not null unique);

create table SCHEMA.task(
  seq bigint generated always as identity primary key,  -- age; never used again: an old copy would pass for a new task
  queue int not null references SCHEMA.queue(id),
  id text collate "C" not null,
  name text collate "C" not null,
  payload bytea not null,
  state text collate "C" not null,
  eta float8,
  expires float8,
  priority bigint not null,
  retries bigint not null check (retries >= 0),
  policy text,                                -- what is not default in the retry policy, as JSON
  timeout float8,
  attempt bigint not null check (attempt >= 0),
  interruptions bigint not null check (interruptions >= 0),
  worker text collate "C" not null,
  version bigint not null check (version > 0),  -- how many lines the history has
  lease float8,                               -- until when it is held
  rank bigint,                                -- to be looked at by a claim now: higher first
  due float8,                                 -- gets a rank then
  ended float8,                               -- when it came to rest
  result bytea,
  history text collate "C" not null,
  -- What waits is held, or to be looked at now, or later; what runs is held; what rests has ended: one thing at a time.
  constraint one_place check (num_nonnulls(lease, rank, due, ended) = 1 and case
    when state in (WAITING) then ended is null
    when state in (RUNNING) then lease is not null
    else ended is not null end)
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

-- No statement has a choice of indexes, whatever the server knows, or does not know yet, of what is in the table: each
-- condition fits one. So a row is found by `id` and `queue + 0`, or by `seq`; `queue` fits only those that follow.
create unique index task_id on SCHEMA.task(id, (queue + 0));
-- Each holds only the rows that it is asked for: a finished task costs a claim nothing.
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

-- Who wants to be told what: commits that notify wait for one another, so it is done only for those who listen.
create unlogged table SCHEMA.listener(
  queue int not null, channel text not null, process text not null, until timestamptz not null,
  primary key (queue, channel, process)
);

FOREMOST

-- What one commit may do to a state. Their conditions are all that a lawful write pays for these triggers.
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

_FOREMOST: Final = """\
-- The foremost tasks, locked for whoever asks, and what is revoked of them. Those that others have locked are passed
-- over. Revocations are read once the tasks are locked, so that none can be overlooked that came before.
create function SCHEMA.foremost(which int, moment float8, ripen int, most int)
returns table (ROW, own_until float8, own_once boolean, function_until float8, function_once boolean)
language plpgsql as $$
#variable_conflict use_column
declare picked bigint[];
begin
  if ripen > 0 and exists (select from SCHEMA.task where queue = which and due <= moment) then
    update SCHEMA.task t set rank = t.priority, due = null from (
      select seq from SCHEMA.task where queue = which and due <= moment
      order by due, seq limit ripen for update skip locked
    ) ripe where t.seq = ripe.seq;
  end if;
  picked := array(
    select seq from SCHEMA.task where queue = which and rank is not null
    order by rank desc, seq limit most for update skip locked
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

# Whether it is to be called off, while it runs; and those that are. The function that shows it has a name of its own:
# processes of the release before go on calling theirs.
_SECOND: Final = f"""
alter table SCHEMA.task add column canceling boolean not null default false;

create index task_canceling on SCHEMA.task(queue, seq) where canceling;

{_FOREMOST.replace("SCHEMA.foremost", "SCHEMA.claimable")}
"""


def _literals(*names: str) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _from_the_law(script: str, columns: str) -> str:
    """A script, with what it has of the lifecycle filled in, and these columns for what is read of a task."""
    steps = [(source, target.name) for source, targets in LIFECYCLE.steps.items() for target in sorted(targets)]
    parts = {
        "WAITING": _literals(*(state.name for state in LIFECYCLE.of_kind(Kind.WAITING))),
        "RUNNING": _literals(*(state.name for state in LIFECYCLE.of_kind(Kind.RUNNING))),
        "BIRTHS": _literals(*(target for source, target in steps if source is None)),
        "STEPS": _literals(*(f"{source}>{target}" for source, target in steps if source is not None)),
        "ROW": columns,
        "FIELDS": ", ".join(f"t.{name}" for name in _names(columns)),
    }
    for name, part in parts.items():
        script = script.replace(name, part)
    return script


MIGRATIONS: list[str] = [
    _from_the_law(_FIRST.replace("FOREMOST", _FOREMOST), _OLDEST_COLUMNS),
    _from_the_law(_SECOND, _COLUMNS),
]
"""Script n makes version n + 1 of the one before; a released one never changes. ``SCHEMA`` stands for the schema."""


def quoted(name: str) -> str:
    """An identifier as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def migration(number: int, schema: str) -> str:
    """The script that makes this version, for a schema of that name."""
    return MIGRATIONS[number - 1].replace("SCHEMA", quoted(schema))
