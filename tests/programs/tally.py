"""A task that writes down that it ran, and a producer: ``python tally.py FIRST COUNT`` enqueues and waits for all."""

import json
import multiprocessing
import os
import sys
import time
from pathlib import Path

from lifecycle import TaskQueue

setting = json.loads(os.environ["PROGRAM"])
queue = TaskQueue(setting["url"], **setting["queue"])
tally = Path(setting["folder"], "tally")
wire = None if setting["wire"] is None else os.open(setting["wire"], os.O_WRONLY)


def tell(**what):
    if wire is not None:
        parent = multiprocessing.parent_process()
        who = {"pid": os.getpid(), "consumer": os.getpid() if parent is None else parent.pid}
        os.write(wire, json.dumps(who | what).encode() + b"\n")


@queue.task()
def count(number):
    file = os.open(tally, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.write(file, f"{number}\n".encode())
    os.close(file)
    return number


@queue.task()
def now():
    return time.time()


@queue.on_startup()
def up():
    tell(note="up")


def main():
    first, number = int(sys.argv[1]), int(sys.argv[2])
    tell(note="ready")
    sys.stdin.readline()  # until all are
    results = [count(one) for one in range(first, first + number)]
    values = [result.get(timeout=60) for result in results]
    tell(note="done", right=values == [*range(first, first + number)])
    queue.close()


if __name__ == "__main__":
    main()
