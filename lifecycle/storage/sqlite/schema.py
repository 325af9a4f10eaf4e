"""The schema of the SQLite file, the migrations between versions, and the check whether a file holds queues.

The file contains the states and transitions of the table. Triggers refuse all others, from any program.
"""

import sqlite3
from typing import Final

from lifecycle.core.table import LIFECYCLE, Kind
from lifecycle.errors import StorageUnusable

__all__ = ["APPLICATION_ID", "VERSION", "migrate", "version"]

APPLICATION_ID: Final = 0x4C696679
"""Marks the file as a file of queues ("Lify")."""
_STEPS: Final = [
    (source or "", target.name) for source, targets in LIFECYCLE.steps.items() for target in sorted(targets)
]

_FIRST: Final = """
create table queue(id integer primary key, name text not null unique) strict;

create table task(
  seq integer primary key autoincrement,   -- age; never reused: an old copy must not pass for a new task
  queue integer not null references queue(id),
  id text not null,
  name text not null,
  payload blob not null,
  state text not null,
  eta real,
  expires real,
  priority integer not null,
  retries integer not null check (retries >= 0),
  policy text,                             -- fields of the retry policy that differ from the default, as JSON
  timeout real,
  attempt integer not null,
  interruptions integer not null,
  worker text not null,
  version integer not null,                -- number of lines of the history
  lease real,                              -- end of the lease
  rank integer,                            -- claims consider the task now, higher ranks first
  due real,                                -- the task gets a rank at this time
  ended real,                              -- time when the task came to rest
  result blob,
  history text not null,
  unique (queue, id)
) strict;

-- Each index contains only rows that are looked up by it: a finished task costs a claim nothing.
create index task_ready on task(queue, rank desc, seq) where rank is not null;
create index task_due on task(queue, due, seq) where due is not null;
create index task_held on task(queue, lease) where lease is not null;
create index task_ended on task(queue, ended) where ended is not null;

create table revocation(
  queue integer not null, function integer not null, key text not null, until real, once integer not null,
  primary key (queue, function, key)
) strict, without rowid;

create table lock(
  queue integer not null, name text not null, owner text not null, until real not null, worker text, task text,
  primary key (queue, name)
) strict, without rowid;

-- From which state to which state one commit may move a task; '' stands for a new task.
create table step(source text not null, target text not null, primary key (source, target)) strict, without rowid;

create trigger task_born before insert on task
when not exists (select 1 from step where source = '' and target = new.state)
begin select raise(abort, 'illegal transition: no new task has that state'); end;

-- Claims consider only waiting tasks, also after a change of the state by hand.
create trigger task_rests after update of state on task
when new.state not in (WAITING) and (new.rank is not null or new.due is not null)
begin update task set rank = null, due = null where seq = new.seq; end;

create trigger task_moves before update of state on task
when not exists (select 1 from step where source = old.state and target = new.state)
begin select raise(abort, 'illegal transition: the table has no such step'); end;
"""

# Request to cancel a running task, and an index of those requests.
_SECOND: Final = """
alter table task add column canceling integer not null default 0;

create index task_canceling on task(queue, seq) where canceling;
"""

# Time when the task was enqueued: the time in the first line of its history.
_THIRD: Final = """
alter table task add column enqueued real;

update task set enqueued = cast(substr(history, instr(history, char(9)) + 1) as real);
"""

# Summaries of blocks of 256 tasks, made by readers (`lifecycle.storage.sqlite.summary`). One that is there is right.
_FOURTH: Final = """
create table summary(
  queue integer not null,
  name text not null,   -- '=' and the name of a function; '': tasks of all functions
  state text not null,  -- '' and no function: the block has a summary
  block integer not null,
  count integer not null,
  latest real,          -- time of the latest enqueueing
  primary key (queue, name, state, block)
) strict, without rowid;

create index summary_of_block on summary(queue, block);

create trigger task_leaves_summary after update of state on task
begin delete from summary where queue = new.queue and block = new.seq >> 8; end;

create trigger task_gone_from_summary after delete on task
begin delete from summary where queue = old.queue and block = old.seq >> 8; end;
"""

# States of periodic tasks.
_FIFTH: Final = """
create table periodic(
  queue integer not null,
  name text not null,
  ticked real not null,  -- moment up to which ticks have been made
  paused integer not null default 0,
  task text,             -- id of the task of the latest tick
  primary key (queue, name)
) strict, without rowid;
"""

# Steps of workflows. The trigger is the one of the first script, with one more state, and without a list of states: of
# more than two, SQLite makes a table each time.
_SIXTH: Final = """
alter table task add column step text;     -- place in a workflow, as JSON

alter table task add column verdict text;  -- what has become of the tasks that it waits for

-- How many ends a task still waits for. A table of its own: the row of a task that waits for many is large.
create table awaits(
  queue integer not null, id text not null, number integer not null, primary key (queue, id)
) strict, without rowid;

drop trigger task_rests;

create trigger task_rests after update of state on task
when (new.rank is not null or new.due is not null) and IS_NOT_WAITING
begin update task set rank = null, due = null where seq = new.seq; end;
"""

_MIGRATIONS: Final = (_FIRST, _SECOND, _THIRD, _FOURTH, _FIFTH, _SIXTH)
"""Script n (from 0) turns version n into version n + 1. A released script never changes."""
VERSION: Final = len(_MIGRATIONS)
"""Version of the schema. A file with a higher version was written by a newer release."""


def version(db: sqlite3.Connection, path: str) -> int:
    """Return the version of the file's schema, 0 for an empty file. Changes nothing.

    Raises `StorageUnusable` if the file belongs to another program, or to a newer release.
    """
    application: int = db.execute("pragma application_id").fetchone()[0]
    found: int = db.execute("pragma user_version").fetchone()[0]
    tables = [
        name for (name,) in db.execute("select name from sqlite_master where type = 'table' order by name limit 4")
    ]
    if application == APPLICATION_ID:
        if found > VERSION:
            raise StorageUnusable(
                f"{path} has schema version {found}, this release knows {VERSION}: use the release that wrote it"
            )
        return found
    if application or found or tables:
        what = f"tables {', '.join(tables)}" if tables else f"application id {application:#x}"
        raise StorageUnusable(f"{path} is another program's database ({what}): name a file of its own for the queue")
    return 0


def migrate(db: sqlite3.Connection, found: int) -> None:
    """Bring a file of that version (0: an empty one) up to date, within the caller's transaction."""
    # Not executescript(): it would commit the caller's transaction first.
    waiting = [f"'{state}'" for state in LIFECYCLE.of_kind(Kind.WAITING)]
    is_not_waiting = " and ".join(f"new.state <> {state}" for state in waiting)
    for script in _MIGRATIONS[found:]:
        filled = script.replace("IS_NOT_WAITING", is_not_waiting).replace("WAITING", ", ".join(waiting))
        for statement in _statements(filled):
            db.execute(statement)
    if found < VERSION:
        db.executemany("insert or ignore into step(source, target) values (?, ?)", _STEPS)
    if not found:
        db.execute(f"pragma application_id = {APPLICATION_ID}")
    db.execute(f"pragma user_version = {VERSION}")


def _statements(script: str) -> list[str]:
    statements, rest = [], ""
    for piece in script.split(";"):
        rest += piece + ";"
        if sqlite3.complete_statement(rest):
            statements.append(rest)
            rest = ""
    return statements
