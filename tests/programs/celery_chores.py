"""Celery app that records its signals, and a producer of tasks with different histories."""

import json
import os
import sys
import time
from pathlib import Path

from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from celery_trace import record

FOLDER = Path(os.environ["CHORES"])
app = Celery("celery_chores", broker=os.environ["BROKER"])
app.conf.update(
    broker_transport_options={"global_keyprefix": os.environ["BROKER_PREFIX"]},
    worker_prefetch_multiplier=1,
)
record(FOLDER / "trace.jsonl")


@app.task
def add(a, b):
    return a + b


@app.task(bind=True, max_retries=1)
def flaky(self):
    if not self.request.retries:
        raise self.retry(exc=ValueError("the first time"), countdown=0.1)


@app.task
def patient(name):
    """Wait for the file "go on"; clean up at a soft time limit."""
    (FOLDER / name).touch()
    try:
        until((FOLDER / "go on").exists)
    except SoftTimeLimitExceeded:
        return "cleaned up"
    return "done"


def until(condition):
    while not condition():
        time.sleep(0.01)


def wait_for_signals(result, *signals):
    """Wait until these signals of a task are recorded; return the task's result."""
    lines = (FOLDER / "trace.jsonl").read_bytes
    until(
        lambda: {one["signal"] for one in map(json.loads, lines().splitlines()) if one["id"] == result.id} >= {*signals}
    )
    return result


def begun(name):
    """Start a patient task, and wait until it runs."""
    result = patient.delay(name)
    until((FOLDER / name).exists)
    return result


def wait_for_revocation(result):
    """Wait until the worker has logged that it will not run a task."""
    text = f"Tasks flagged as revoked: {result.id}"
    until(lambda: text in (FOLDER / "worker.log").read_text())


def produce(part):
    """Send tasks, and stop some of them; return a dict: history → result."""
    if part == "before":  # no worker is there yet
        result = add.delay(1, 2)
        result.revoke()
        return {"is revoked too early": result}
    if part == "afterwards":
        return {"afterwards": wait_for_signals(add.delay(1, 2), "task_success")}
    histories = {
        "completes": wait_for_signals(add.delay(1, 2), "task_success"),
        "is retried": wait_for_signals(flaky.delay(), "task_success"),
    }
    histories["is stopped"] = begun("stopped")
    histories["is stopped"].revoke(terminate=True, signal="SIGUSR1")
    wait_for_signals(histories["is stopped"], "task_revoked", "task_success")
    histories["is terminated"] = begun("terminated")
    histories["is terminated"].revoke(terminate=True)
    wait_for_signals(histories["is terminated"], "task_revoked")
    histories["is revoked while it runs"] = begun("revoked")
    histories["is revoked while it runs"].revoke()
    wait_for_revocation(histories["is revoked while it runs"])
    (FOLDER / "go on").touch()
    wait_for_signals(histories["is revoked while it runs"], "task_success")
    (FOLDER / "go on").unlink()
    histories["is killed"] = begun("killed")
    return histories


def main(part):
    """Run one part, and print a JSON object: history → id of its task."""
    sys.stdout.write(json.dumps({what: result.id for what, result in produce(part).items()}))
