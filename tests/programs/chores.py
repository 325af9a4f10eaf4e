"""Tasks of every kind. Consumers send their signals and acts as events, through the pipe of the setting."""

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
from lifecycle.storage.sqlite import database

setting = json.loads(os.environ["PROGRAM"])
if setting.get("looks"):  # at its file at each use
    database.CHECK_INTERVAL_SECONDS = 0.0
queue = TaskQueue(setting["url"], **setting["queue"])
release = Path(setting["folder"], "release")
events = None if setting["events"] is None else os.open(setting["events"], os.O_WRONLY)


def send_event(**values):
    """Write one line in one call, so that lines of several processes do not mix."""
    if events is not None:
        parent = multiprocessing.parent_process()
        sender = {"pid": os.getpid(), "consumer": os.getpid() if parent is None else parent.pid}
        os.write(events, json.dumps(sender | values).encode() + b"\n")


def is_first(task):
    """Return True at the first run of this task, and send an event then."""
    try:
        os.close(os.open(release.with_name(task.id[-40:]), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    send_event(id=task.id, note="begun")
    return True


def is_released():
    return release.exists()


def wait_for_release():
    while not is_released():
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
    """Do nothing: a hook cancels the task."""


@queue.task()
@queue.lock_task("chores")
def locked():
    """Do nothing, under a lock."""


@queue.task(timeout=0.2)
def endless():
    while True:
        time.sleep(0.005)


@queue.task(context=True)
def linger(task=None):
    """At the first run wait for the release, and clean up."""
    try:  # before the event "begun": a test may interrupt the task at once after the event
        if is_first(task):
            wait_for_release()
    finally:
        if task.attempt == 1:
            send_event(id=task.id, note="left")
    return task.attempt


@queue.task(context=True)
def stubborn(task=None):
    """At the first run wait for the release, and catch all interruptions."""
    if is_first(task):
        while not is_released():
            try:
                wait_for_release()
            except BaseException:
                send_event(id=task.id, note="swallowed")
    return task.attempt


@queue.task(context=True)
def asleep(task=None):
    """At the first run sleep in C, where no exception can be raised."""
    if is_first(task):
        time.sleep(3600)
    return task.attempt


@queue.task(context=True)
def hoard(task=None):
    """Acquire a lock and never release it; at the first run wait for the release."""
    taken = queue.lock_task("hoard").acquire()
    if is_first(task):
        wait_for_release()
    return taken


@queue.task(context=True)
async def left_behind(task=None):
    """At the first run wait for a thread that does not end; the thread itself sends the event, so that it is there."""
    await asyncio.to_thread(lambda: is_first(task) and wait_for_release())


@queue.task()
def celebrated():
    """Do nothing: the handler of `complete` waits for the release."""


# More functions, plain and `async`.


@queue.task()
async def add_async(a, b):
    await asyncio.sleep(0)
    return a + b


@queue.task(timeout=0.2)
async def endless_async():
    await asyncio.sleep(3600)


@queue.task(context=True)
async def linger_async(task=None):
    """At the first run wait for the release, and clean up."""
    try:
        if is_first(task):
            while not is_released():
                await asyncio.sleep(0.005)
    finally:
        if task.attempt == 1:
            send_event(id=task.id, note="left")
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
    """Do nothing: the function is revoked."""


@queue.task(context=True)
def known(task=None):
    return [task.id, task.attempt, task.state]


@queue.task(context=True)
async def known_async(task=None):
    return [task.id, task.attempt, task.state]


# For two versions of the program.

if setting.get("version", 2) > 1:

    @queue.task(retries=1)
    def fresh(number):
        return -number


# For workers that are processes.


@queue.task(timeout=0.2)
def dozing():
    """Sleep in C, where the timeout has to interrupt it."""
    time.sleep(3600)


@queue.task(timeout=0.2, context=True)
def ignoring_timeout(task=None):
    """Catch the timeout, and wait on."""
    while True:
        try:
            wait_for_release()
        except BaseException:
            send_event(id=task.id, note="swallowed")


@queue.task()
def poison():
    """Kill the worker."""
    os.kill(os.getpid(), signal.SIGKILL)


@queue.task()
def dies(code):
    """End the worker's process."""
    os._exit(code)


@queue.task()
def where():
    return os.getpid()


@queue.task()
def program():
    """Start a program that prints its ignored and its blocked signals; return its output."""
    code = (
        "import signal; print([n for n in signal.valid_signals() if signal.getsignal(n) is signal.SIG_IGN"
        " and n not in (signal.SIGPIPE, signal.SIGXFSZ)] + [*signal.pthread_sigmask(signal.SIG_BLOCK, [])])"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@queue.task(context=True)
def family(method, task=None):
    """Use a pool of child processes, and terminate another child process."""
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
    """Wait until `count` calls run in this process."""
    together.append(1)
    while len(together) < count:
        time.sleep(0.005)
    return count


@queue.task(timeout=0.2)
async def compute():
    """Compute without an await until the timeout."""
    while not is_released():
        pass


@queue.task()
async def passes_on(a, b):
    """Use the queue inside an async function."""
    return add(a, b).id


# Tasks of consumers that are killed all the time: each function writes its end to a file.


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
    """Fail at the first attempt that is not interrupted before."""
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
def cancel_unwanted(task):
    if task.name == unwanted.name:
        raise CancelExecution("not wanted")


if events is not None:  # in a consumer

    @queue.on_startup()
    def up():
        send_event(note="up")

    @queue.on_shutdown()
    def down():
        send_event(note="down")

    @queue.on_startup()
    async def up_async():
        await asyncio.sleep(0)
        send_event(note="up, async")

    @queue.on_shutdown()
    async def down_async():
        await asyncio.sleep(0)
        send_event(note="down, async")

    @queue.signal()
    def report(signal, task, exc=None):
        send_event(id=task.id, signal=signal, **outcome(signal, task, exc))

    @queue.signal(SIGNAL_COMPLETE)
    def celebrate(signal, task):
        if task.name == celebrated.name:
            send_event(id=task.id, note="celebrating")
            wait_for_release()


def outcome(signal, task, exc):
    """Return the value, or the error, that a handler can read."""
    if signal == SIGNAL_COMPLETE:
        return {"value": queue.result(task.id)}
    if signal == SIGNAL_ERROR:
        try:
            queue.result(task.id)
        except TaskException as error:
            return {"error": error.metadata["error"], "exc": repr(exc)}
    return {}
