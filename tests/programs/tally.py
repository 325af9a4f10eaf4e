"""Task that writes its number to a file, and a producer: ``python tally.py FIRST COUNT`` enqueues and waits."""

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
events = None if setting["events"] is None else os.open(setting["events"], os.O_WRONLY)


def send_event(**values):
    if events is not None:
        parent = multiprocessing.parent_process()
        sender = {"pid": os.getpid(), "consumer": os.getpid() if parent is None else parent.pid}
        os.write(events, json.dumps(sender | values).encode() + b"\n")


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
    send_event(note="up")


def main():
    first, number = int(sys.argv[1]), int(sys.argv[2])
    send_event(note="ready")
    sys.stdin.readline()  # until all producers are ready
    results = [count(one) for one in range(first, first + number)]
    values = [result.get(timeout=60) for result in results]
    send_event(note="done", right=values == [*range(first, first + number)])
    queue.close()


if __name__ == "__main__":
    main()
