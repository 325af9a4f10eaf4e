"""Stores for the tests, and what is done with them over and over."""

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
"""Seconds after which what is awaited is taken for lost, on a machine that is busy."""
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
"""What functions that run in another process may use."""


@contextmanager
def opening(path):
    """Opens stores on a file, and closes them in the end."""
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
    """The same by a URL: stores of any kind."""
    with ExitStack() as stores:
        yield lambda queue="default": stores.enter_context(closing(open_storage(where, queue)))


def rows(path, queue=None):
    """All that is in a file, or of a queue in it."""
    which = "" if queue is None else f" where queue = (select id from queue where name = '{queue}')"
    with closing(sqlite3.connect(path)) as db:
        return [db.execute(f"select * from {table}{which}").fetchall() for table in ("task", "revocation", "lock")]


def start(storage, worker="w", now=5.0, **options):
    """Claim, and announce; the tasks that were started."""
    _, claims = storage.exchange((), ClaimRequest(worker, now, 10.0, **options))
    for task, move in claims:
        move.apply(task)
    return [task for task, _ in claims if task.state == EXECUTING]


def settlement(task, trigger=COMPLETE, now=6.0, result=None, follow_ups=(), **options):
    """What the worker that runs it says of its end."""
    outcome = Outcome(trigger, result, **options)
    return Settlement(task, policies.settle(task, outcome, now, worker=task.worker, follow_ups=follow_ups))


def completed(task):
    """What the worker that runs it says, if all went well."""
    return settlement(task, COMPLETE, result=b"1")


def disturbed(storage, disturb, times, total=600):
    """Run tasks in four workers while something is done to the store so many times: nothing is lost, or done twice.

    `disturb` returns 0 if it has met nobody, and is called again then. It goes by progress, not by the clock: the
    workers get no further than to the next disturbance, so that a slow machine disturbs as often as a fast one.
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
    """Run tasks until all are done, whatever is cut meanwhile, and note the outcomes that were accepted.

    Pauses while as many as ``goal[0]`` were accepted.
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
    """Wait until there is such a task; False if a wait was not ended by its coming."""
    while True:
        generation = storage.generation(Channel.WORK)
        if storage.get(task_id) is not None:
            return True
        if not storage.wait(Channel.WORK, generation, PATIENCE):
            return False


def elsewhere(function, *arguments, using=()):
    """Call a function in another process, along with others that it calls."""
    sources = [inspect.getsource(one) for one in (*using, function)]
    code = "\n\n".join([HEADER, *sources, f"{function.__name__}(*{arguments!r})"])
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)


def produce(where, *task_ids):
    """To be called elsewhere: enqueue tasks."""
    storage = open_storage(where, "default")
    storage.enqueue([Task(task_id, "add") for task_id in task_ids], 1.0, Actor("elsewhere"))
    storage.close()
