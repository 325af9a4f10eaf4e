"""A downloader of videos whose page shows the status of each download: signals on every task, limits and timeouts."""

import json
import os
import sys
import time
from collections import defaultdict

from huey import CancelExecution, SqliteHuey, signals
from huey.exceptions import RateLimitExceeded, ResultTimeout, TaskException

huey = SqliteHuey("downloads", filename=os.environ["PROGRAM_DB"])

status, log, sent, names = {}, [], defaultdict(list), {}
tries = defaultdict(int)


@huey.signal()
def remember(signal, task, *_):
    sent[task.id].append(signal)
    names.setdefault(task.id, f"{task.name}{list(task.args)}")


@huey.signal(signals.SIGNAL_ENQUEUED, signals.SIGNAL_SCHEDULED)
def waiting(signal, task):
    status[task.id] = "waiting"


@huey.signal(signals.SIGNAL_EXECUTING)
def begun(signal, task):
    status[task.id] = "loading"


@huey.signal(signals.SIGNAL_COMPLETE)
def done(signal, task):
    log.append(f"{task.args[0]} is here: {huey.result(task.id, preserve=True)}")
    status[task.id] = "done"


@huey.signal(signals.SIGNAL_ERROR)
def failed(signal, task, exc=None):
    status[task.id] = "failed"
    log.append(f"{task.args[0]}: {type(exc).__name__}({exc})")


@huey.signal(signals.SIGNAL_LOCKED, signals.SIGNAL_RATE_LIMITED, signals.SIGNAL_CANCELED, signals.SIGNAL_TIMEOUT,
             signals.SIGNAL_REVOKED, signals.SIGNAL_EXPIRED)  # fmt: skip
def stopped(signal, task):
    status[task.id] = signal
    log.append(f"{task.args[0]}: {signal}")


@huey.signal(signals.SIGNAL_COMPLETE)
def broken(signal, task):
    raise RuntimeError("a handler that raises disturbs nobody")


@huey.task(retries=1)
def download(name, size=1):
    """Load a video; the first try of a large one breaks off."""
    tries[name] += 1
    if size > 100 and tries[name] == 1:
        raise ConnectionResetError(f"{name} broke off")
    return {"name": name, "size": size, "parts": (size // 2, size - size // 2)}


@huey.task()
@huey.lock_task("site")
def scrape(site):
    """Read the list of videos of a site, one reader at a time."""
    return [f"{site}/1", f"{site}/2"]


@huey.task()
@huey.rate_limit("thumbnails", limit=2, per=3600, retry=False)
def thumbnail(name):
    """Make a picture; only a few in an hour."""
    return f"{name}.png"


@huey.task(timeout=0.2, context=True)
def convert(name, task=None):
    """Convert a video, which takes too long."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        task.check_timeout()
        time.sleep(0.01)
    return name


@huey.task()
def check_license(name, allowed):
    """Stop a download that is not allowed."""
    if not allowed:
        raise CancelExecution(f"{name} is not allowed")
    return "allowed"


def until(condition):
    """Wait for a condition; fail after half a minute."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, (status, sent)
        time.sleep(0.01)


def outcome(result):
    """Return the value of a task, or the name of its error."""
    try:
        return result(blocking=True, timeout=20)
    except TaskException as error:
        return error.metadata["error"].partition("(")[0]


def main():
    """Start downloads, some of which are stopped, and print the page."""
    small, large = download("small"), download("large", size=1000)
    allowed, forbidden = check_license("free", True), check_license("secret", False)
    unwanted = download("unwanted")
    unwanted.revoke()
    assert len(huey) == 5
    try:
        small.get(blocking=True, timeout=0.05)
    except ResultTimeout:
        log.append("nothing yet")
    moved = download("moved").reschedule(delay=0.5)
    pictures = [thumbnail(f"v{n}") for n in range(3)]
    slow = convert("slow")
    with huey.lock_task("site"):
        blocked = scrape("videos.example")
        consumer = huey.create_consumer(workers=1, initial_delay=0.01, max_delay=0.05)
        consumer.start()
        until(lambda: "locked" in sent[blocked.id])
    again = scrape("videos.example")
    ends = {small: "done", large: "done", allowed: "done", forbidden: "canceled", moved: "done", slow: "timeout"}
    ends |= {again: "done", pictures[0]: "done", pictures[1]: "done", pictures[2]: "rate-limited"}
    until(lambda: all(status.get(result.id) == end for result, end in ends.items()))  # the handlers read the results
    large.reset()
    found = {
        label: outcome(result)
        for label, result in {
            "small": small, "large": large, "allowed": allowed, "forbidden": forbidden, "moved": moved, "slow": slow,
            "blocked": blocked, "again": again, "first": pictures[0], "second": pictures[1], "third": pictures[2],
        }.items()
    }  # fmt: skip
    until(lambda: status.get(unwanted.id) == "revoked")
    consumer.stop(graceful=True)
    found["unwanted"], found["errors"] = unwanted.get(), RateLimitExceeded.__name__
    huey.disconnect_signal(done)
    huey.immediate = True
    found["at once"] = download("immediate").get()
    huey.immediate = False
    found["log"], found["page"] = sorted(log), sorted(status.values())
    found["signals"] = sorted([names[task_id], *all_sent] for task_id, all_sent in sent.items())
    json.dump(found, sys.stdout, default=str)


if __name__ == "__main__":
    main()
