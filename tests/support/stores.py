"""Stores for tests, and the calls that many tests make."""

import inspect
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager

from lifecycle.core import policies
from lifecycle.core.policies import Outcome
from lifecycle.core.table import COMPLETE, EXECUTING
from lifecycle.core.task import Task
from lifecycle.errors import StorageUnavailable
from lifecycle.storage import SQLiteStorage, open_storage
from lifecycle.storage.base import Actor, Channel, ClaimRequest, Settlement

PATIENCE = 60.0
"""Seconds after which a test stops waiting; long enough for a busy machine."""
PRODUCER = Actor("producer")

HEADER = """
import sys
from lifecycle.core import policies
from lifecycle.core.policies import Outcome
from lifecycle.storage import open_storage
from lifecycle.storage.base import Actor, Channel, ClaimRequest, Settlement
from lifecycle.core.table import COMPLETE
from lifecycle.core.task import Task
"""
"""Imports for functions that run in another process: see `elsewhere`."""


@contextmanager
def opening(path):
    """Yield a function that opens stores on a file; they are closed in the end."""
    stores = []

    def opens(queue="default", **options):
        stores.append(SQLiteStorage(path, queue, **({"synchronous": "off"} | options)))
        return stores[-1]

    try:
        yield opens
    finally:
        for store in stores:
            store.close()


@contextmanager
def opening_at(where):
    """Yield a function that opens stores at a URL; they are closed in the end."""
    with ExitStack() as stores:
        yield lambda queue="default": stores.enter_context(closing(open_storage(where, queue)))


def rows(path, queue=None):
    """Return all rows of tasks, revocations and locks in a file, or those of one queue."""
    which = "" if queue is None else f" where queue = (select id from queue where name = '{queue}')"
    with closing(sqlite3.connect(path)) as db:
        return [db.execute(f"select * from {table}{which}").fetchall() for table in ("task", "revocation", "lock")]


def start(storage, worker="w", now=5.0, **options):
    """Claim, and return the started tasks as they are after the claim."""
    _, claims = storage.exchange((), ClaimRequest(worker, now, 10.0, **options))
    for task, move in claims:
        move.apply(task)
    return [task for task, _ in claims if task.state == EXECUTING]


def settlement(task, trigger=COMPLETE, now=6.0, result=None, follow_ups=(), **options):
    """Return the settlement of a running task by its worker."""
    outcome = Outcome(trigger, result, **options)
    return Settlement(task, policies.settle(task, outcome, now, worker=task.worker, follow_ups=follow_ups))


def completed(task):
    """Return the settlement of a running task that has succeeded."""
    return settlement(task, COMPLETE, result=b"1")


def disturbed(storage, disturb, times, total=600):
    """Run tasks in four workers and disturb the store `times` times; no task is lost or completed twice.

    `disturb` returns 0 if it had no effect; then it is called again. Progress decides, not time: the workers pause
    before the next disturbance, so that there are as many on a slow machine as on a fast one.
    """
    stop, accepted, goal = threading.Event(), [], [0]
    storage.enqueue([Task(str(n), "add") for n in range(total)], 1.0, PRODUCER)
    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(work_off, storage, f"w{n}", total, stop, accepted, goal) for n in range(4)]
        try:
            for n in range(times):
                goal[0] = min((n + 1) * total // times, total - 1)
                while len(accepted) < n * total // times and not any(worker.done() for worker in workers):
                    stop.wait(0.001)
                while disturb() == 0 and not any(worker.done() for worker in workers):
                    stop.wait(0.001)
            goal[0] = total
            for worker in workers:
                worker.result(PATIENCE)
        finally:
            stop.set()
    assert len(accepted) == total
    tasks = storage.tasks(limit=2 * total)
    assert len(tasks) == total
    assert {(task.state, task.attempt, task.version) for task in tasks} == {("complete", 1, 3)}


def work_off(storage, name, total, stop, accepted, goal):
    """Run tasks until all are complete, through lost connections; collect the accepted outcomes.

    Pauses once ``goal[0]`` outcomes were accepted, until the goal is higher.
    """
    done = []
    while not stop.is_set():
        if total > len(accepted) >= goal[0]:
            stop.wait(0.001)
            continue
        try:
            took, claims = storage.exchange(done, ClaimRequest(name, 2.0, 1000.0, limit=3))
        except StorageUnavailable:
            continue
        assert all(took)
        accepted += took
        for task, move in claims:
            move.apply(task)
        done = [completed(task) for task, _ in claims]
        if not done:
            try:
                if storage.counts().get("complete") == total:
                    return
            except StorageUnavailable:
                continue
            storage.wait(Channel.OUTCOME, storage.generation(Channel.OUTCOME), 0.05)


def await_task(storage, task_id):
    """Wait until the task is stored. Return False if a wait ended without a change."""
    while True:
        generation = storage.generation(Channel.WORK)
        if storage.get(task_id) is not None:
            return True
        if not storage.wait(Channel.WORK, generation, PATIENCE):
            return False


def elsewhere(function, *arguments, using=()):
    """Call a function in another process; `using`: functions that it calls."""
    sources = [inspect.getsource(one) for one in (*using, function)]
    code = "\n\n".join([HEADER, *sources, f"{function.__name__}(*{arguments!r})"])
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)


def produce(where, *task_ids):
    """Enqueue tasks; to be called in another process."""
    storage = open_storage(where, "default")
    storage.enqueue([Task(task_id, "add") for task_id in task_ids], 1.0, Actor("elsewhere"))
    storage.close()
