"""An app of Celery's that records its signals, and, run as a program, a producer that goes through some lives."""

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
    """Run until told to go on; clean up when told to stop."""
    (FOLDER / name).touch()
    try:
        until((FOLDER / "go on").exists)
    except SoftTimeLimitExceeded:
        return "cleaned up"
    return "done"


def until(condition):
    while not condition():
        time.sleep(0.01)


def heard(result, *signals):
    """Wait until these were recorded of a task."""
    lines = (FOLDER / "trace.jsonl").read_bytes
    until(
        lambda: {one["signal"] for one in map(json.loads, lines().splitlines()) if one["id"] == result.id} >= {*signals}
    )
    return result


def begun(name):
    """A patient task that runs."""
    result = patient.delay(name)
    until((FOLDER / name).exists)
    return result


def noted(result):
    """Wait until the worker has said that it will not run a task."""
    said = f"Tasks flagged as revoked: {result.id}"
    until(lambda: said in (FOLDER / "worker.log").read_text())


def produce(part):
    """Send tasks, and stop some of them; which life is which task's."""
    if part == "before":  # no worker is there yet
        result = add.delay(1, 2)
        result.revoke()
        return {"is revoked too early": result}
    if part == "afterwards":
        return {"afterwards": heard(add.delay(1, 2), "task_success")}
    lives = {"completes": heard(add.delay(1, 2), "task_success"), "is retried": heard(flaky.delay(), "task_success")}
    lives["is stopped"] = begun("stopped")
    lives["is stopped"].revoke(terminate=True, signal="SIGUSR1")
    heard(lives["is stopped"], "task_revoked", "task_success")
    lives["is terminated"] = begun("terminated")
    lives["is terminated"].revoke(terminate=True)
    heard(lives["is terminated"], "task_revoked")
    lives["is revoked while it runs"] = begun("revoked")
    lives["is revoked while it runs"].revoke()
    noted(lives["is revoked while it runs"])
    (FOLDER / "go on").touch()
    heard(lives["is revoked while it runs"], "task_success")
    (FOLDER / "go on").unlink()
    lives["is killed"] = begun("killed")
    return lives


def main(part):
    """Do a part of it, and say which life is which task's."""
    sys.stdout.write(json.dumps({what: result.id for what, result in produce(part).items()}))
