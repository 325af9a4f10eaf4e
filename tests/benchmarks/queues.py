"""How fast tasks go in and out, beside Huey on the same store, in the same run.

    python tests/benchmarks/queues.py [--tasks 4000] [--rounds 5] [--json FILE] [SYSTEM …]

A system is measured in a process of its own each time; within a round the systems take turns, so that a busy machine
slows all of them. The task adds two numbers; results are stored. `enqueue` is one producer, one call at a time;
`bulk` enqueues 1,000 a call; `drain` runs from the first task's start to the last one's end in the system's own
consumer with one worker thread, or four (`drain4`); `latency` is the time from a call to its result in the caller, with an
idle consumer in the same process. Medians of the rounds; machines are noisy, ratios within one run are not.
Systems on PostgreSQL use the server at $LIFECYCLE_TEST_POSTGRES, in a database of their own; `floor-postgres` is no queue,
but the least that one can do there and still keep state, result and history: one statement that finishes 16 tasks and
claims the next; `floor-redis` is the same in a script. Those on Redis use the server at $LIFECYCLE_TEST_REDIS, under keys
of their own. Needs the extra `bench`.
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


class Clock:
    """Counts the tasks that ran, and when the first began and the last ended."""

    def __init__(self) -> None:
        self.begun, self.ended, self.count, self.target = 0.0, 0.0, 0, 0
        self.reached = threading.Event()
        self._mutex = threading.Lock()

    def expect(self, target: int) -> None:
        self.begun, self.count, self.target = 0.0, 0, target
        self.reached.clear()

    def add(self, a: int, b: int) -> int:
        if not self.begun:
            self.begun = time.perf_counter()
        total = a + b
        with self._mutex:
            self.count += 1
            if self.count == self.target:
                self.ended = time.perf_counter()
                self.reached.set()
        return total


SERVER = os.environ.get("LIFECYCLE_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres")
DATABASE = "lifecycle_bench"
REDIS = os.environ.get("LIFECYCLE_TEST_REDIS", "redis://127.0.0.1:6379/0")
KEYS = f"lifecycle-bench-{os.getpid()}"


def postgres_url() -> str:
    return urlsplit(SERVER)._replace(path=f"/{DATABASE}").geturl()


def empty_database(*, drop_only: bool = False) -> None:
    import psycopg

    with psycopg.connect(SERVER, autocommit=True) as db:
        db.execute(f"drop database if exists {DATABASE} with (force)")
        if not drop_only:
            db.execute(f"create database {DATABASE} template template0 encoding 'UTF8'")


def lifecycle_system(url: str) -> Callable[[Clock], tuple[object, ...]]:
    def build(clock: Clock) -> tuple[object, ...]:
        from lifecycle import Consumer, TaskQueue

        servers = {"postgres": postgres_url(), "redis": f"{REDIS}?prefix={KEYS}"}
        queue = TaskQueue(servers.get(url, url))
        add = queue.task(name="add")(clock.add)

        def start(workers: int) -> Callable[[], None]:
            consumer = Consumer(queue, workers)
            consumer.start()
            return consumer.stop

        def bulk(n: int) -> None:
            queue.enqueue_many([add.s(i, i) for i in range(n)])

        return add, bulk, lambda a, b: add(a, b).get(blocking=True, timeout=60), start

    return build


def huey_system(kind: str) -> Callable[[Clock], tuple[object, ...]]:
    def build(clock: Clock) -> tuple[object, ...]:
        from huey import MemoryHuey, PostgresHuey, RedisHuey, SqliteHuey

        logging.disable(logging.CRITICAL)
        if kind == "postgres":
            huey = PostgresHuey("bench", dsn=postgres_url())
        elif kind.startswith("redis"):
            huey = RedisHuey(KEYS, url=REDIS, notify_result=kind == "redis-notify")
        else:
            huey = MemoryHuey() if kind == "memory" else SqliteHuey(filename="huey.db", fsync=kind == "full")
        add = huey.task(name="add")(clock.add)

        def start(workers: int) -> Callable[[], None]:
            consumer = huey.create_consumer(workers=workers, periodic=False, initial_delay=0.001)
            consumer.start()
            return lambda: consumer.stop(graceful=True)

        def bulk(n: int) -> None:
            for i in range(n):  # it has no call for many
                add(i, i)

        return add, bulk, lambda a, b: add(a, b).get(blocking=True, timeout=60), start

    return build


def threads_of(workers: int, work: Callable[[threading.Event], None]) -> Callable[[], None]:
    """Start workers; what ends them."""
    stop = threading.Event()
    threads = [threading.Thread(target=work, args=(stop,), daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    return lambda: (stop.set(), [thread.join() for thread in threads])  # type: ignore[return-value]


def postgres_floor(clock: Clock) -> tuple[object, ...]:
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
        held: list[object] = []
        while not stop.is_set():
            held = [
                row[0]
                for row in db().execute(
                    "with done as (update task set state = 2, result = %s, history = history || 'complete'"
                    " where seq = any(%s) and state = 1), next as (select seq from task where state = 0"
                    " order by priority desc, seq limit 16 for update skip locked)"
                    " update task t set state = 1, lease = 1.0, history = history || 'executing' from next"
                    " where t.seq = next.seq returning t.seq, t.id, t.name, t.payload",
                    (b"\x01", held),
                )
            ]
            for _ in held:
                clock.add(1, 2)
            if not held:
                stop.wait(0.001)

    return (lambda a, b: insert(1)), insert, (lambda a, b: None), lambda workers: threads_of(workers, work)


FINISH = """
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
BIRTH = """
for n = 2, #ARGV do
  redis.call("HSET", KEYS[1] .. ":task:" .. ARGV[n], "call", ARGV[1], "state", "queued", "history", "queued")
  redis.call("RPUSH", KEYS[1] .. ":ready", ARGV[n])
end
"""


def redis_floor(clock: Clock) -> tuple[object, ...]:
    import redis

    db = redis.Redis.from_url(REDIS)
    birth, finish, keys = db.register_script(BIRTH), db.register_script(FINISH), [f"{{{KEYS}}}"]

    def insert(n: int) -> None:
        birth(keys=keys, args=[b"\x92\x01\x02", *(os.urandom(16).hex() for _ in range(n))])

    def work(stop: threading.Event) -> None:
        held: list[object] = []
        while not stop.is_set():
            held = [entry[0] for entry in finish(keys=keys, args=[16, *held])]
            for _ in held:
                clock.add(1, 2)
            if not held:
                stop.wait(0.001)

    return (lambda a, b: insert(1)), insert, (lambda a, b: None), lambda workers: threads_of(workers, work)


SYSTEMS: dict[str, Callable[[Clock], tuple[object, ...]]] = {
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


def clear_away() -> None:
    """What this process has left on a Redis server."""
    import redis

    db = redis.Redis.from_url(REDIS)
    for pattern in (f"{{{KEYS}*", f"huey.*{KEYS.replace('-', '')}*"):
        for key in db.scan_iter(match=pattern, count=5000):
            db.unlink(key)


def measure(system: str, tasks: int) -> dict[str, float]:
    """All figures of one system, in this process and folder."""
    clock = Clock()
    add, bulk, wait, start = SYSTEMS[system](clock)
    figures: dict[str, float] = {}
    clock.expect(tasks)
    began = time.perf_counter()
    for i in range(tasks):
        add(i, i)
    figures["enqueue /s"] = tasks / (time.perf_counter() - began)
    for workers, name in ((1, "drain /s"), (4, "drain4 /s")):
        if workers == 4:
            clock.expect(tasks)
            began = time.perf_counter()
            for _ in range(0, tasks, 1000):
                bulk(min(1000, tasks))
            figures["bulk /s"] = tasks / (time.perf_counter() - began)
        cpu = time.process_time()
        stop = start(workers)
        if not clock.reached.wait(300):
            raise TimeoutError(f"{system}: {clock.count} of {tasks} tasks ran")
        if workers == 1:
            figures["CPU us/task"] = (time.process_time() - cpu) / tasks * 1e6
        figures[name] = tasks / (clock.ended - clock.begun)
        stop()
    stop = start(1)
    samples = []
    for i in range(100):
        began = time.perf_counter()
        wait(i, i)
        samples.append(time.perf_counter() - began)
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
            clear_away()
        sys.stdout.flush()
        os._exit(0)  # some clients keep threads alive; the measurement is over
    unknown = [name for name in options.systems if name not in SYSTEMS]
    if unknown:
        parser.error(f"no system {', '.join(unknown)}: there are {', '.join(SYSTEMS)}")
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in options.systems or SYSTEMS}
    for number in range(options.rounds):
        for name, figures in runs.items():
            command = [sys.executable, str(Path(__file__).resolve()), "--measure", name, "--tasks", str(options.tasks)]
            if "postgres" in name:
                empty_database()
            with tempfile.TemporaryDirectory() as folder:
                done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
            figures.append(json.loads(done.stdout.splitlines()[-1]))
            print(f"round {number + 1}: {name}", file=sys.stderr)
    if any("postgres" in name for name in runs):
        empty_database(drop_only=True)
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
