"""Chores: tasks of every kind. A consumer of them tells what it hears and does on the descriptor that it was given."""

import asyncio
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from lifecycle import SIGNAL_COMPLETE, SIGNAL_ERROR, CancelExecution, RetryTask, TaskException, TaskQueue

setting = json.loads(os.environ["PROGRAM"])
queue = TaskQueue(setting["url"], **setting["queue"])
gate = Path(setting["folder"], "gate")
wire = None if setting["wire"] is None else os.open(setting["wire"], os.O_WRONLY)


def tell(**what):
    """A line is written at once, so that those of several processes do not mix."""
    if wire is not None:
        parent = multiprocessing.parent_process()
        who = {"pid": os.getpid(), "consumer": os.getpid() if parent is None else parent.pid}
        os.write(wire, json.dumps(who | what).encode() + b"\n")


def is_first(task):
    """Has no body of this task run before?"""
    try:
        os.close(os.open(gate.with_name(task.id[-40:]), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    tell(id=task.id, note="begun")
    return True


def is_open():
    return gate.exists()


def wait_at_the_gate():
    while not is_open():
        time.sleep(0.005)


@queue.task()
def add(a, b):
    return a + b


@queue.task(retries=2, retry_delay=setting["delay"], context=True)
def flaky(task=None):
    if task.attempt == 1:
        raise ValueError("uh-oh")
    return "OK"


@queue.task(retries=1, context=True)
def hasty(task=None):
    if task.attempt == 1:
        raise ValueError("uh-oh")
    return "OK"


@queue.task()
def hopeless():
    raise ValueError("never")


@queue.task(context=True)
def polite(task=None):
    if task.attempt == 1:
        raise RetryTask("not ready yet")
    return "OK"


@queue.task()
def unwanted():
    """Is called off by a hook."""


@queue.task()
@queue.lock_task("chores")
def locked():
    """Needs a lock."""


@queue.task(timeout=0.2)
def endless():
    while True:
        time.sleep(0.005)


@queue.task(context=True)
def linger(task=None):
    """Stays until the gate is open, and cleans up; does not stay when it runs again."""
    try:  # before it tells that it has begun: whoever hears that may interrupt it at once
        if is_first(task):
            wait_at_the_gate()
    finally:
        if task.attempt == 1:
            tell(id=task.id, note="left")
    return task.attempt


@queue.task(context=True)
def stubborn(task=None):
    """Does not let itself be interrupted, until the gate is open; does not stay when it runs again."""
    if is_first(task):
        while not gate.exists():
            try:
                wait_at_the_gate()
            except BaseException:
                tell(id=task.id, note="swallowed")
    return task.attempt


@queue.task(context=True)
def asleep(task=None):
    """Waits where no exception reaches it; does not when it runs again."""
    if is_first(task):
        time.sleep(3600)
    return task.attempt


@queue.task(context=True)
def hoard(task=None):
    """Takes a lock and never gives it back; stays with it until the gate is open, but not when it runs again."""
    taken = queue.lock_task("hoard").acquire()
    if is_first(task):
        wait_at_the_gate()
    return taken


@queue.task(context=True)
async def left_behind(task=None):
    """Waits for a thread that does not end; not when it runs again."""
    if is_first(task):
        await asyncio.to_thread(wait_at_the_gate)


@queue.task()
def celebrated():
    """Has a handler that takes its time once it is complete."""


# The same for what else a body can do, plain or `async`.


@queue.task()
async def add_async(a, b):
    await asyncio.sleep(0)
    return a + b


@queue.task(timeout=0.2)
async def endless_async():
    await asyncio.sleep(3600)


@queue.task(context=True)
async def linger_async(task=None):
    """See `linger`."""
    try:
        if is_first(task):
            while not is_open():
                await asyncio.sleep(0.005)
    finally:
        if task.attempt == 1:
            tell(id=task.id, note="left")
    return task.attempt


@queue.task(retries=1, context=True)
async def hasty_async(task=None):
    await asyncio.sleep(0)
    if task.attempt == 1:
        raise ValueError("uh-oh")
    return "OK"


@queue.task()
def exits():
    sys.exit("it is over")


@queue.task()
async def exits_async():
    sys.exit("it is over")


@queue.task()
def unserializable():
    return object()


@queue.task()
def unneeded():
    """Is revoked."""


@queue.task(context=True)
def known(task=None):
    return [task.id, task.attempt, task.state]


@queue.task(context=True)
async def known_async(task=None):
    return [task.id, task.attempt, task.state]


# For workers that are processes.


@queue.task(timeout=0.2)
def dozing():
    """Waits in C, where its timeout has to get it out."""
    time.sleep(3600)


@queue.task(timeout=0.2, context=True)
def deaf(task=None):
    """Takes no notice of its timeout."""
    while True:
        try:
            wait_at_the_gate()
        except BaseException:
            tell(id=task.id, note="swallowed")


@queue.task()
def poison():
    """Kills its worker."""
    os.kill(os.getpid(), signal.SIGKILL)


@queue.task()
def where():
    return os.getpid()


@queue.task()
def program():
    """What a program that is started here does with signals: those that it ignores, and those that are blocked."""
    code = (
        "import signal; print([n for n in signal.valid_signals() if signal.getsignal(n) is signal.SIG_IGN"
        " and n not in (signal.SIGPIPE, signal.SIGXFSZ)] + [*signal.pthread_sigmask(signal.SIG_BLOCK, [])])"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@queue.task(context=True)
def family(method, task=None):
    """Has processes of its own, one of which it terminates."""
    context = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        values = pool.map(abs, [-1, -2, -3])
    idle = context.Process(target=time.sleep, args=(3600,))
    idle.start()
    idle.terminate()
    idle.join()
    return [*values, idle.exitcode]


# For workers that are greenlets.

together = []


@queue.task()
def meet(count):
    """Waits for so many others, in this very process."""
    together.append(1)
    while len(together) < count:
        time.sleep(0.005)
    return count


@queue.task(timeout=0.2)
async def compute():
    """Does not await anything: its timeout has to get it out by force."""
    while not is_open():
        pass


@queue.task()
async def passes_on(a, b):
    """Uses its queue."""
    return add(a, b).id


# What is run by consumers that are killed all the time: whoever comes to the end of a task writes that down.


def finish(name):
    file = os.open(Path(setting["folder"], "finished"), os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.write(file, f"{name}\n".encode())
    os.close(file)


@queue.task()
def quick(number):
    finish(f"quick-{number}")
    return number


@queue.task(retries=2)
def steady(number, seconds):
    time.sleep(seconds)
    finish(f"steady-{number}")
    return number


@queue.task(retries=2, retry_delay=0.05, context=True)
def shaky(number, seconds, task=None):
    """Fails at the first attempt that comes so far."""
    time.sleep(seconds)
    if task.retries == 2:
        raise ValueError("uh-oh")
    finish(f"shaky-{number}")
    return number


@queue.task(retries=2)
def doomed(number, seconds):
    time.sleep(seconds)
    raise ValueError("never")


# Hooks and handlers --------------------------------------------------------------------------------------------------


@queue.pre_execute()
def call_off(task):
    if task.name == unwanted.name:
        raise CancelExecution("nobody wants it")


if wire is not None:  # in a consumer

    @queue.on_startup()
    def up():
        tell(note="up")

    @queue.on_shutdown()
    def down():
        tell(note="down")

    @queue.on_startup()
    async def up_async():
        await asyncio.sleep(0)
        tell(note="up, async")

    @queue.on_shutdown()
    async def down_async():
        await asyncio.sleep(0)
        tell(note="down, async")

    @queue.signal()
    def report(signal, task, exc=None):
        tell(id=task.id, signal=signal, **outcome(signal, task, exc))

    @queue.signal(SIGNAL_COMPLETE)
    def celebrate(signal, task):
        if task.name == celebrated.name:
            tell(id=task.id, note="celebrating")
            wait_at_the_gate()


def outcome(signal, task, exc):
    """What a handler can read of it."""
    if signal == SIGNAL_COMPLETE:
        return {"value": queue.result(task.id)}
    if signal == SIGNAL_ERROR:
        try:
            queue.result(task.id)
        except TaskException as error:
            return {"error": error.metadata["error"], "exc": repr(exc)}
    return {}
