"""Functions that leave a context variable set, or fail while they hold an object that must not outlive them."""

import asyncio
import gc
import json
import multiprocessing
import os
import sys
import threading
import weakref
from contextvars import ContextVar

from lifecycle import TaskQueue

setting = json.loads(os.environ["PROGRAM"])
queue = TaskQueue(setting["url"], **setting["queue"])
events = None if setting["events"] is None else os.open(setting["events"], os.O_WRONLY)
user: ContextVar[str] = ContextVar("user", default="nobody")


class Ballast:
    """Object of a function that fails."""


afloat = weakref.WeakSet()
"""The objects that are still in memory."""
if events is not None:  # in a consumer
    gc.disable()


def send_event(**values):
    """Write one line in one call, so that lines of several processes do not mix."""
    if events is not None:
        parent = multiprocessing.parent_process()
        sender = {"pid": os.getpid(), "consumer": os.getpid() if parent is None else parent.pid}
        os.write(events, json.dumps(sender | values).encode() + b"\n")


def fail():
    ballast = Ballast()
    afloat.add(ballast)
    try:
        raise LookupError("first")
    except LookupError as error:
        raise ValueError("second") from error


@queue.task(retries=1)
def fails():
    fail()


@queue.task(retries=1)
async def fails_async():
    await asyncio.sleep(0)
    fail()


@queue.task()
def count():
    """Return how many objects are still in memory."""
    return len(afloat)


@queue.task()
async def count_async():
    """Return how many objects are still in memory; in an asyncio worker no thread of plain functions is used for it."""
    return len(afloat)


def visit():
    """Set the variable; return its value before."""
    before = user.get()
    user.set("body")
    return before


@queue.task()
def sets():
    return visit()


@queue.task()
async def sets_async():
    await asyncio.sleep(0)
    return visit()


@queue.pre_execute()
def before(task):
    send_event(id=task.id, before=user.get())
    user.set("hook")


@queue.post_execute()
def after(task, value, exc):
    send_event(id=task.id, after=user.get())


@queue.signal()
def handle(signal, task, exc=None):
    caught = sys.exc_info()[1]
    send_event(id=task.id, signal=signal, found=user.get(), caught=repr(caught), same=caught is exc)
    send_event(id=task.id, retries=task.retries, eta=task.eta, signal=signal, attempt=task.attempt)
    user.set("handler")


@queue.on_startup()
def up():
    send_event(note="up", thread=threading.current_thread().name)
