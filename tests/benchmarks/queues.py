"""Measures the speed of this queue and of Huey, on each store, in one run.

    python tests/benchmarks/queues.py [--tasks 4000] [--rounds 5] [--json FILE] [SYSTEM …]

The task adds two numbers; results are stored. Each measurement of a system has a new process. The systems take turns in
each round, so that a busy machine slows all of them. The medians of the rounds are printed: compare only figures of one
run, as machines differ and their load changes.

- `enqueue`: one producer, one call for each task. `bulk`: 1,000 tasks in a call.
- `drain`: from the start of the first task to the end of the last task, in the system's own consumer with one worker
  thread; `drain4`: with four. `CPU`: the time of the processor in `drain`.
- `p50`, `p99`: the time from a call to its result in the caller, with an idle consumer in the same process.

Systems on PostgreSQL use the server at $LIFECYCLE_TEST_POSTGRES, in a database of their own. Systems on Redis use the
server at $LIFECYCLE_TEST_REDIS, under keys of their own. The floors are no queues, but the least work on that store
which keeps state, result and history: `floor-postgres` finishes 16 tasks and claims the next 16 in one statement,
`floor-redis` in one script. Needs the extra `bench`.
"""

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

SYNCHRONOUS = ("off", "normal", "full")


class Stopwatch:
    """The benchmark's task, and the times of the first task's start and of the last task's end."""

    def __init__(self) -> None:
        self.started_at, self.ended_at, self.count, self.target = 0.0, 0.0, 0, 0
        self.reached = threading.Event()
        self._mutex = threading.Lock()

    def expect(self, target: int) -> None:
        self.started_at, self.count, self.target = 0.0, 0, target
        self.reached.clear()

    def add(self, a: int, b: int) -> int:
        if not self.started_at:
            self.started_at = time.perf_counter()
        total = a + b
        with self._mutex:
            self.count += 1
            if self.count == self.target:
                self.ended_at = time.perf_counter()
                self.reached.set()
        return total


POSTGRES_URL = os.environ.get("LIFECYCLE_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres")
POSTGRES_DATABASE = "lifecycle_bench"
REDIS_URL = os.environ.get("LIFECYCLE_TEST_REDIS", "redis://127.0.0.1:6379/0")
KEY_PREFIX = f"lifecycle-bench-{os.getpid()}"


def postgres_url() -> str:
    return urlsplit(POSTGRES_URL)._replace(path=f"/{POSTGRES_DATABASE}").geturl()


def recreate_database(*, drop_only: bool = False) -> None:
    import psycopg

    with psycopg.connect(POSTGRES_URL, autocommit=True) as db:
        db.execute(f"drop database if exists {POSTGRES_DATABASE} with (force)")
        if not drop_only:
            db.execute(f"create database {POSTGRES_DATABASE} template template0 encoding 'UTF8'")


def lifecycle_system(url: str) -> Callable[[Stopwatch], tuple[object, ...]]:
    def build(stopwatch: Stopwatch) -> tuple[object, ...]:
        from lifecycle import Consumer, TaskQueue

        servers = {"postgres": postgres_url(), "redis": f"{REDIS_URL}?prefix={KEY_PREFIX}"}
        queue = TaskQueue(servers.get(url, url))
        add = queue.task(name="add")(stopwatch.add)

        def start(workers: int) -> Callable[[], None]:
            consumer = Consumer(queue, workers)
            consumer.start()
            return consumer.stop

        def bulk(n: int) -> None:
            queue.enqueue_many([add.s(i, i) for i in range(n)])

        return add, bulk, lambda a, b: add(a, b).get(blocking=True, timeout=60), start

    return build


def huey_system(kind: str) -> Callable[[Stopwatch], tuple[object, ...]]:
    def build(stopwatch: Stopwatch) -> tuple[object, ...]:
        from huey import MemoryHuey, PostgresHuey, RedisHuey, SqliteHuey

        logging.disable(logging.CRITICAL)
        if kind == "postgres":
            huey = PostgresHuey("bench", dsn=postgres_url())
        elif kind.startswith("redis"):
            huey = RedisHuey(KEY_PREFIX, url=REDIS_URL, notify_result=kind == "redis-notify")
        else:
            huey = MemoryHuey() if kind == "memory" else SqliteHuey(filename="huey.db", fsync=kind == "full")
        add = huey.task(name="add")(stopwatch.add)

        def start(workers: int) -> Callable[[], None]:
            consumer = huey.create_consumer(workers=workers, periodic=False, initial_delay=0.001)
            consumer.start()
            return lambda: consumer.stop(graceful=True)

        def bulk(n: int) -> None:
            for i in range(n):  # Huey has no call for many tasks
                add(i, i)

        return add, bulk, lambda a, b: add(a, b).get(blocking=True, timeout=60), start

    return build


def threads_of(workers: int, work: Callable[[threading.Event], None]) -> Callable[[], None]:
    """Start worker threads; return a function that ends them."""
    stop = threading.Event()
    threads = [threading.Thread(target=work, args=(stop,), daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    return lambda: (stop.set(), [thread.join() for thread in threads])  # type: ignore[return-value]


def postgres_floor(stopwatch: Stopwatch) -> tuple[object, ...]:
    import psycopg

    connections = threading.local()

    def db() -> "psycopg.Connection[tuple[object, ...]]":
        if not hasattr(connections, "db"):
            connections.db = psycopg.connect(postgres_url(), autocommit=True, prepare_threshold=0)
        return connections.db

    db().execute(
        "create table task(seq bigserial primary key, id text unique, name text, state smallint, priority int default 0,"
        " payload bytea, result bytea, lease float8, history text)"
    )
    db().execute("create index ready on task(priority desc, seq) where state = 0")

    def insert(n: int) -> None:
        db().execute(
            "insert into task(id, name, state, payload, history) select id, 'add', 0, %s, 'queued' from unnest(%s::text[]) id",
            (b"\x92\x01\x02", [os.urandom(16).hex() for _ in range(n)]),
        )

    def work(stop: threading.Event) -> None:
        claimed_ids: list[object] = []
        while not stop.is_set():
            claimed_ids = [
                row[0]
                for row in db().execute(
                    "with done as (update task set state = 2, result = %s, history = history || 'complete'"
                    " where seq = any(%s) and state = 1), next as (select seq from task where state = 0"
                    " order by priority desc, seq limit 16 for update skip locked)"
                    " update task t set state = 1, lease = 1.0, history = history || 'executing' from next"
                    " where t.seq = next.seq returning t.seq, t.id, t.name, t.payload",
                    (b"\x01", claimed_ids),
                )
            ]
            for _ in claimed_ids:
                stopwatch.add(1, 2)
            if not claimed_ids:
                stop.wait(0.001)

    return (lambda a, b: insert(1)), insert, (lambda a, b: None), lambda workers: threads_of(workers, work)


FINISH_AND_CLAIM_SCRIPT = """
local claimed = {}
for n = 2, #ARGV do
  local key = KEYS[1] .. ":task:" .. ARGV[n]
  redis.call("HSET", key, "state", "complete", "result", "3", "history", redis.call("HGET", key, "history") .. "complete")
  redis.call("ZREM", KEYS[1] .. ":running", ARGV[n])
end
for n, id in ipairs(redis.call("LPOP", KEYS[1] .. ":ready", ARGV[1]) or {}) do
  local key = KEYS[1] .. ":task:" .. id
  local found = redis.call("HMGET", key, "call", "history")
  redis.call("HSET", key, "state", "executing", "history", found[2] .. "executing")
  redis.call("ZADD", KEYS[1] .. ":running", 1, id)
  claimed[n] = {id, found[1]}
end
return claimed
"""
ENQUEUE_SCRIPT = """
for n = 2, #ARGV do
  redis.call("HSET", KEYS[1] .. ":task:" .. ARGV[n], "call", ARGV[1], "state", "queued", "history", "queued")
  redis.call("RPUSH", KEYS[1] .. ":ready", ARGV[n])
end
"""


def redis_floor(stopwatch: Stopwatch) -> tuple[object, ...]:
    import redis

    db = redis.Redis.from_url(REDIS_URL)
    keys = [f"{{{KEY_PREFIX}}}"]
    enqueue, finish_and_claim = db.register_script(ENQUEUE_SCRIPT), db.register_script(FINISH_AND_CLAIM_SCRIPT)

    def insert(n: int) -> None:
        enqueue(keys=keys, args=[b"\x92\x01\x02", *(os.urandom(16).hex() for _ in range(n))])

    def work(stop: threading.Event) -> None:
        claimed_ids: list[object] = []
        while not stop.is_set():
            claimed_ids = [entry[0] for entry in finish_and_claim(keys=keys, args=[16, *claimed_ids])]
            for _ in claimed_ids:
                stopwatch.add(1, 2)
            if not claimed_ids:
                stop.wait(0.001)

    return (lambda a, b: insert(1)), insert, (lambda a, b: None), lambda workers: threads_of(workers, work)


SYSTEMS: dict[str, Callable[[Stopwatch], tuple[object, ...]]] = {
    "lifecycle-memory": lifecycle_system("memory://"),
    "huey-memory": huey_system("memory"),
    **{f"lifecycle-sqlite-{sync}": lifecycle_system(f"sqlite:///q.db?synchronous={sync}") for sync in SYNCHRONOUS},
    "huey-sqlite-off": huey_system("off"),
    "huey-sqlite-full": huey_system("full"),
    "lifecycle-postgres": lifecycle_system("postgres"),
    "huey-postgres": huey_system("postgres"),
    "floor-postgres": postgres_floor,
    "lifecycle-redis": lifecycle_system("redis"),
    "huey-redis": huey_system("redis"),
    "huey-redis-notify": huey_system("redis-notify"),
    "floor-redis": redis_floor,
}


def delete_redis_keys() -> None:
    """Delete the keys of this process on the Redis server."""
    import redis

    db = redis.Redis.from_url(REDIS_URL)
    for pattern in (f"{{{KEY_PREFIX}*", f"huey.*{KEY_PREFIX.replace('-', '')}*"):
        for key in db.scan_iter(match=pattern, count=5000):
            db.unlink(key)


def measure(system: str, tasks: int) -> dict[str, float]:
    """Return all figures of one system, measured in this process and folder."""
    stopwatch = Stopwatch()
    add, bulk, wait, start = SYSTEMS[system](stopwatch)
    figures: dict[str, float] = {}
    stopwatch.expect(tasks)
    started_at = time.perf_counter()
    for i in range(tasks):
        add(i, i)
    figures["enqueue /s"] = tasks / (time.perf_counter() - started_at)
    for workers, name in ((1, "drain /s"), (4, "drain4 /s")):
        if workers == 4:
            stopwatch.expect(tasks)
            started_at = time.perf_counter()
            for _ in range(0, tasks, 1000):
                bulk(min(1000, tasks))
            figures["bulk /s"] = tasks / (time.perf_counter() - started_at)
        cpu = time.process_time()
        stop = start(workers)
        if not stopwatch.reached.wait(300):
            raise TimeoutError(f"{system}: {stopwatch.count} of {tasks} tasks ran")
        if workers == 1:
            figures["CPU us/task"] = (time.process_time() - cpu) / tasks * 1e6
        figures[name] = tasks / (stopwatch.ended_at - stopwatch.started_at)
        stop()
    stop = start(1)
    samples = []
    for i in range(100):
        started_at = time.perf_counter()
        wait(i, i)
        samples.append(time.perf_counter() - started_at)
    stop()
    samples.sort()
    figures["p50 ms"], figures["p99 ms"] = samples[50] * 1e3, samples[98] * 1e3
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("systems", nargs="*", metavar="SYSTEM", help=", ".join(SYSTEMS))
    parser.add_argument("--tasks", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.tasks)))
        if "redis" in options.measure:
            delete_redis_keys()
        sys.stdout.flush()
        os._exit(0)  # the measurement is over, but some clients keep threads alive
    unknown = [name for name in options.systems if name not in SYSTEMS]
    if unknown:
        parser.error(f"no system {', '.join(unknown)}: there are {', '.join(SYSTEMS)}")
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in options.systems or SYSTEMS}
    for number in range(options.rounds):
        for name, figures in runs.items():
            command = [sys.executable, str(Path(__file__).resolve()), "--measure", name, "--tasks", str(options.tasks)]
            if "postgres" in name:
                recreate_database()
            with tempfile.TemporaryDirectory() as folder:
                done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
            figures.append(json.loads(done.stdout.splitlines()[-1]))
            print(f"round {number + 1}: {name}", file=sys.stderr)
    if any("postgres" in name for name in runs):
        recreate_database(drop_only=True)
    medians = {
        name: {key: statistics.median(f[key] for f in figures) for key in figures[0]} for name, figures in runs.items()
    }
    columns = list(next(iter(medians.values())))
    print(f"| {'':24} | " + " | ".join(f"{column:>11}" for column in columns) + " |")
    print("|" + "-" * 26 + ("|" + "-" * 13) * len(columns) + "|")
    for name, figures in medians.items():
        cells = (f"{figures[c]:11,.0f}" if c.endswith("/s") else f"{figures[c]:11.2f}" for c in columns)
        print(f"| {name:24} | " + " | ".join(cells) + " |")
    if options.json:
        options.json.write_text(json.dumps({"medians": medians, "runs": runs}, indent=1))


if __name__ == "__main__":
    main()
