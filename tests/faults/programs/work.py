"""Tasks of every kind, which append a line to the journal when their function begins and when it ends.

Each line is written in one call, so that a line is complete even if its process dies.
"""

import asyncio
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from lifecycle import RetryTask, Task, TaskQueue

setting = json.loads(os.environ["FAULTS"])
queue = TaskQueue(setting["url"], **setting["queue"])
release_file = Path(setting["release_file"])
member = int(os.environ.get("FAULTS_MEMBER", "0"))
journal = os.open(setting["journal"], os.O_CREAT | os.O_APPEND | os.O_WRONLY)


def note(what, task=None, attempt=0):
    line = f"{what}\t{task or '-'}\t{attempt}\t{member}\t{os.getpid()}\t{time.monotonic()!r}\n"
    os.write(journal, line.encode())


def begin(task):
    note("begin", task.id, task.attempt)


def end(task):
    note("end", task.id, task.attempt)


@queue.signal()
def listen(signal, task, exc=None):
    """Note every signal. With this handler tasks are held until they are announced."""
    note(f"signal {signal}", task.id, task.attempt)


@queue.task(context=True)
def quick(task=None):
    begin(task)
    end(task)


@queue.task(context=True)
def steady(seconds, ballast="", task=None):
    begin(task)
    time.sleep(seconds)
    end(task)


@queue.task(context=True)
async def patient(seconds, task=None):
    begin(task)
    await asyncio.sleep(seconds)
    end(task)


@queue.task(retries=2, retry_delay=0.05, context=True)
def shaky(seconds, task=None):
    """Fail at the first attempt that is not interrupted before."""
    begin(task)
    time.sleep(seconds)
    if task.retries == 2:
        raise ValueError("uh-oh")
    end(task)


@queue.task(retries=1, context=True)
def doomed(task=None):
    begin(task)
    raise ValueError("never")


@queue.task(context=True)
def polite(task=None):
    begin(task)
    if task.attempt == 1:
        raise RetryTask("not ready yet")
    end(task)


@queue.task(retries=10_000, retry_delay=0.1, context=True)
def exclusive(number, seconds, task=None):
    """Hold the lock of this number; without it the task is retried."""
    begin(task)
    with queue.lock_task(f"exclusive-{number}"):
        time.sleep(seconds)
    end(task)


@queue.task(timeout=0.05, retries=1, context=True)
def endless(task=None):
    """Run too long at the first attempt that is not interrupted before."""
    begin(task)
    while task.retries == 1:
        time.sleep(0.002)
    end(task)


@queue.task(context=True)
def linger(task=None):
    """Wait for the release file."""
    begin(task)
    while not release_file.exists():
        time.sleep(0.005)
    end(task)


@queue.task(context=True)
def unwanted(task=None):
    """Run until the task is canceled."""
    begin(task)
    while True:
        time.sleep(0.005)


@queue.task(context=True)
def poison(task=None):
    """Kill the worker."""
    begin(task)
    os.kill(os.getpid(), signal.SIGKILL)


@queue.task(context=True)
def forking(code, task=None):
    """Fork a child that returns from the function (code 0), or exits with a code of its own."""
    begin(task)
    child = os.fork()
    if child == 0:
        if code:
            sys.exit(code)
        return
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) != code:
        raise ValueError(f"the child ended with {status}")
    end(task)


def flat(value):
    """Return the sum of a number, or of the numbers in nested lists."""
    return sum(map(flat, value)) if isinstance(value, list) else value


@queue.task(context=True)
def plus(more, value=0, task=None):
    """Step of a workflow: add a number to the values of the steps before."""
    begin(task)
    end(task)
    return more + flat(value)


@queue.task(retries=1, context=True)
def shaky_plus(more, value=0, task=None):
    """Do the same, but take a while, and fail at the first attempt that is not interrupted before."""
    begin(task)
    time.sleep(0.01)
    if task.retries == 1:
        raise ValueError("uh-oh")
    end(task)
    return more + flat(value)


@queue.task(context=True)
def no_plus(more, value=0, task=None):
    """Fail as a step of a workflow."""
    begin(task)
    raise ValueError(f"no {more} for {value}")


@queue.task(context=True)
def told(error, task=None):
    """Error callback: return the name of the function that failed."""
    begin(task)
    end(task)
    return error.metadata["error_type"]


def ticking(task=None):
    begin(task)
    time.sleep(0.02)
    end(task)


RULES = {f"work.ticking_{number}": 1.0 if number % 2 else "* * * * * *" for number in range(20)}
"""Rule of each periodic task: a tick in each second. Consumers make ticks only if they are told to."""

for name, rule in RULES.items():
    if not setting.get("ticks"):
        queue.task(context=True, name=name)(ticking)
    elif isinstance(rule, str):
        queue.periodic(rule, misfire="run_all", context=True, name=name)(ticking)
    else:
        queue.periodic(every=rule, misfire="run_all", context=True, name=name)(ticking)

RESTS = {
    **{name.removeprefix("work."): ["complete"] for name in RULES},
    "plus": ["complete", "skipped"],
    "shaky_plus": ["complete", "skipped"],
    "no_plus": ["error", "skipped"],
    "told": ["complete", "skipped"],
    "quick": ["complete"],
    "steady": ["complete"],
    "patient": ["complete"],
    "shaky": ["complete"],
    "doomed": ["error"],
    "polite": ["complete"],
    "exclusive": ["complete"],
    "endless": ["complete", "timeout"],  # on a busy machine
    "linger": ["complete"],
    "unwanted": ["canceled", "revoked"],
    "poison": ["interrupted"],
    "forking": ["complete"],
}
"""States in which the tasks of each function may rest."""


def mix(rng: random.Random, count: int) -> list[Task]:
    """Make `count` random tasks: quick and slow ones, some that fail once, some that always fail."""
    kinds = {
        "quick": (40, lambda: quick.s()),
        "steady": (20, lambda: steady.s(rng.uniform(0, 0.05))),
        "patient": (10, lambda: patient.s(rng.uniform(0, 0.05))),
        "shaky": (12, lambda: shaky.s(rng.uniform(0, 0.02))),
        "doomed": (6, lambda: doomed.s()),
        "polite": (6, lambda: polite.s()),
        "exclusive": (4, lambda: exclusive.s(rng.randrange(8), rng.uniform(0, 0.01))),
        "endless": (2, lambda: endless.s()),
    }
    names = rng.choices(list(kinds), [weight for weight, _ in kinds.values()], k=count)
    return [kinds[name][1]() for name in names]
