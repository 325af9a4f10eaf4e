"""Measures look-ups in a store of a million tasks: numbers of tasks by state, and pages by state, function and time.

    python tests/benchmarks/lookups.py [--tasks 1000000] [--queued 10] [--json FILE] [STORE …]

The tasks are written by SQL or by a script, as the queue would have written them: nine functions that are called often,
and one that is called once in 10,000 calls. Of the tasks that ended, one in a hundred is in `error`, and one in 10,000 in
`revoked`. The newest are `queued`, as many percent as `--queued` says. Each look-up is made 7 times; the median is
printed. `first` is the first look of all, which may prepare something. PostgreSQL: the server at
$LIFECYCLE_TEST_POSTGRES, in a database of its own. Redis: the server at $LIFECYCLE_TEST_REDIS, under keys of their own.
"""

import argparse
import json
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from lifecycle.core.table import COMPLETE, ERROR, QUEUED, REVOKED
from lifecycle.storage import open_storage
from lifecycle.storage.base import Storage

POSTGRES_URL = os.environ.get("LIFECYCLE_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres")
DATABASE = "lifecycle_lookups"
REDIS_URL = os.environ.get("LIFECYCLE_TEST_REDIS", "redis://127.0.0.1:6379/0")
PREFIX = f"lifecycle-lookups-{os.getpid()}"
PAYLOAD = b"\x92\x92\x01\x02\x80".ljust(40, b"\x00")
_STATE = (
    f"case when n > {{ended}} then '{QUEUED}' when n % 10000 = 0 then '{REVOKED}'"
    f" when n % 100 = 0 then '{ERROR}' else '{COMPLETE}' end"
)
_NAME = "case when n % 10000 = 77 then 'tasks.rare' else 'tasks.f' || (n % 9) end"


def insertion(table: str, numbers: str, ended: int, blob: str, text: str) -> str:
    """Return SQL that inserts tasks 1 to n; `numbers`: a query for the numbers."""
    state, history = _STATE.format(ended=ended), f"{text} || n || '\t0\tp\n' || {text} || n || '\t1\tw\n'"
    return (
        f"insert into {table}(queue, id, name, payload, state, priority, retries, attempt, interruptions, worker,"
        " version, rank, ended, history, enqueued)"
        f" select 1, {text} || (n * 7919 % 1000003) || '-' || n || '-00000000000000000000', {_NAME}, {blob}, {state},"
        f" 0, 0, 1, 0, 'worker', 3, case when n > {ended} then 0 end, case when n > {ended} then null else n end,"
        f" {history}, n from ({numbers}) as numbers(n)"
    )


@contextmanager
def sqlite_store(count: int, ended: int) -> Iterator[Storage]:
    """Yield a store in a file."""
    with tempfile.TemporaryDirectory() as folder, closing(open_storage(f"sqlite:///{folder}/q.db", "default")) as store:
        store.counts()
        numbers = f"with recursive n(n) as (select 1 union all select n + 1 from n where n < {count}) select n from n"
        with closing(sqlite3.connect(f"{folder}/q.db")) as db, db:
            db.execute("insert into queue(id, name) select 1, 'default' where not exists (select 1 from queue)")
            db.execute("create temp table numbers as " + numbers)
            (born,) = db.execute("select sql from sqlite_master where name = 'task_born'").fetchone()
            db.execute("drop trigger task_born")
            sql = insertion("task", "select n from numbers", ended, f"x'{PAYLOAD.hex()}'", "''")
            db.execute(sql.replace("as numbers(n)", "as numbers"))
            db.execute(born)
        yield store


@contextmanager
def postgres_store(count: int, ended: int) -> Iterator[Storage]:
    """Yield a store in a database that is dropped in the end."""
    import psycopg

    with psycopg.connect(POSTGRES_URL, autocommit=True) as db:
        db.execute(f"drop database if exists {DATABASE} with (force)")
        db.execute(f"create database {DATABASE} template template0 encoding 'UTF8'")
        url = urlsplit(POSTGRES_URL)._replace(path=f"/{DATABASE}").geturl()
        try:
            with closing(open_storage(url, "default")) as store:
                store.counts()
                with psycopg.connect(url, autocommit=True) as own:
                    own.execute("alter table lifecycle.task disable trigger task_born")
                    numbers = f"select generate_series(1::bigint, {count})"
                    payload = "'\\x" + PAYLOAD.hex() + "'::bytea"
                    own.execute(insertion("lifecycle.task", numbers, ended, payload, "''::text"))
                    own.execute("alter table lifecycle.task enable trigger task_born")
                    own.execute("vacuum analyze lifecycle.task")
                yield store
        finally:
            db.execute(f"drop database if exists {DATABASE} with (force)")


_FILL = """
for n = tonumber(ARGV[2]), tonumber(ARGV[3]) do
  local waits = n > tonumber(ARGV[4])
  local state = waits and "$QUEUED" or n % 10000 == 0 and "$REVOKED_STATE" or n % 100 == 0 and "$ERROR" or "$COMPLETE"
  local name = n % 10000 == 77 and "tasks.rare" or "tasks.f" .. n % 9
  local history = string.format("%d\\t0\\tp\\n%d\\t1\\tw\\n", n, n)
  insert_task({
    string.format("%032d", n * 7919), "\\150" .. cmsgpack.pack(name) .. "\\0\\192\\192\\192" .. cmsgpack.pack(n), ARGV[5],
    {state, 3, history, "worker", 1, 0, 0, false, false, n}, 0, nil, name,
  })
end
flush()
"""


@contextmanager
def redis_store(count: int, ended: int) -> Iterator[Storage]:
    """Yield a store under keys of its own, which are deleted in the end."""
    import redis

    from lifecycle.storage.redis import scripts

    states = {"$QUEUED": QUEUED, "$REVOKED_STATE": REVOKED, "$ERROR": ERROR, "$COMPLETE": COMPLETE}
    fill = _FILL
    for placeholder, state in states.items():
        fill = fill.replace(placeholder, str(state))
    parts = [
        (Path(scripts.__file__).parent / "lua" / f"{name}.lua").read_text() for name in ("policies", "base", "rows")
    ]
    head = "local prefix, args, call = KEYS[1], {}, redis.call"
    text = "\n".join([head, *(scripts.filled(part) for part in parts), fill])
    with (
        redis.Redis.from_url(REDIS_URL) as db,
        closing(open_storage(f"{REDIS_URL}?prefix={PREFIX}", "default")) as store,
    ):
        before = db.info("memory")["used_memory"]
        script, key = db.register_script(text), scripts.key_prefix(PREFIX, "default")
        try:
            for first in range(1, count + 1, 2000):
                script(keys=[key], args=[0, first, min(first + 1999, count), ended, PAYLOAD])
            print(f"redis: {(db.info('memory')['used_memory'] - before) / count:.0f} bytes a task", flush=True)
            yield store
        finally:
            for found in db.scan_iter(match=f"{{{PREFIX}:*", count=10_000):
                db.unlink(found)


STORES: dict[str, Callable[[int, int], "contextmanager[Storage]"]] = {
    "sqlite": sqlite_store, "postgres": postgres_store, "redis": redis_store,
}  # fmt: skip


def look_ups(count: int, ended: int) -> dict[str, Callable[[Storage], object]]:
    """Return the look-ups, by name."""
    return {
        "counts": lambda store: store.counts(),
        "newest": lambda store: store.tasks(),
        "state complete": lambda store: store.tasks([COMPLETE]),
        "state error": lambda store: store.tasks([ERROR]),
        "state revoked": lambda store: store.tasks([REVOKED]),
        "function": lambda store: store.tasks(name="tasks.f1"),
        "rare function": lambda store: store.tasks(name="tasks.rare"),
        "rare function, queued": lambda store: store.tasks([QUEUED], name="tasks.rare"),
        "function, revoked": lambda store: store.tasks([REVOKED], name="tasks.f1"),
        "unknown function": lambda store: store.tasks(name="tasks.none"),
        "since, 50 tasks": lambda store: store.tasks(since=count - 49.0),
        "error since": lambda store: store.tasks([ERROR], since=ended - 5000.0),
        "in the middle": lambda store: store.tasks([ERROR], before=count // 2),
    }


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--queued", type=int, default=10, metavar="PERCENT")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("stores", nargs="*", metavar="STORE", help=", ".join(STORES))
    options = parser.parse_args()
    ended = options.tasks - options.tasks * options.queued // 100
    milliseconds: dict[str, dict[str, float]] = {}
    for name in options.stores or STORES:
        with STORES[name](options.tasks, ended) as store:
            begin = time.perf_counter()
            store.counts()
            found = milliseconds.setdefault(name, {"first": (time.perf_counter() - begin) * 1000})
            for label, look in look_ups(options.tasks, ended).items():
                times = []
                for _ in range(7):
                    begin = time.perf_counter()
                    look(store)
                    times.append((time.perf_counter() - begin) * 1000)
                found[label] = statistics.median(times)
            print(name, *(f"  {label:24}{value:9.1f} ms" for label, value in found.items()), sep="\n", flush=True)
    if options.json:
        options.json.write_text(json.dumps(milliseconds, indent=1))


if __name__ == "__main__":
    main()
