"""A queue of Huey's that records its signals, and, run as a program, a producer that goes through some lives."""

import json
import os
import sys
import time
from pathlib import Path

from huey import SqliteHuey
from huey_trace import record

FOLDER = Path(os.environ["CHORES"])
huey = SqliteHuey("chores", filename=str(FOLDER / "huey.db"))
record(huey, FOLDER / "trace.jsonl")


@huey.task()
def add(a, b):
    return a + b


@huey.task(retries=1)
def flaky():
    failed = FOLDER / "failed"
    if not failed.exists():
        failed.touch()
        raise ValueError("the first time")


@huey.task()
def endless():
    (FOLDER / "running").touch()
    while True:
        time.sleep(1)


def until(condition):
    while not condition():
        time.sleep(0.01)


def produce():
    """Enqueue tasks one after the other; those that end have ended when the last one runs."""
    lives = {"completes": add(1, 2), "is retried": flaky(), "is scheduled": add.schedule((1, 2), delay=0.5)}
    revoked = add.s(1, 2)
    huey.revoke(revoked)
    lives["is revoked"] = huey.enqueue(revoked)
    lives["completes"](blocking=True)
    lives["is scheduled"](blocking=True)
    lives["is killed"] = endless()
    until((FOLDER / "running").exists)
    return lives


def main(part):
    """Say which life is which task's; not run as a script, for Huey would take `__main__` for the tasks' module."""
    if part == "afterwards":
        lives = {"afterwards": add(1, 2)}
        lives["afterwards"](blocking=True)
    else:
        lives = produce()
    sys.stdout.write(json.dumps({what: result.id for what, result in lives.items()}))
