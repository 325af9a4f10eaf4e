"""Huey queue that records its signals, and a producer of tasks with different histories."""

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
    """Enqueue tasks one after the other; return a dict: history → result. All but the last task have ended then."""
    histories = {"completes": add(1, 2), "is retried": flaky(), "is scheduled": add.schedule((1, 2), delay=0.5)}
    revoked = add.s(1, 2)
    huey.revoke(revoked)
    histories["is revoked"] = huey.enqueue(revoked)
    histories["completes"](blocking=True)
    histories["is scheduled"](blocking=True)
    histories["is killed"] = endless()
    until((FOLDER / "running").exists)
    return histories


def main(part):
    """Print a JSON object: history → id of its task. Call it from another module: Huey names tasks by their module."""
    if part == "afterwards":
        histories = {"afterwards": add(1, 2)}
        histories["afterwards"](blocking=True)
    else:
        histories = produce()
    sys.stdout.write(json.dumps({what: result.id for what, result in histories.items()}))
