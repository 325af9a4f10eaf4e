"""Program whose functions fork, and that forks itself while its consumer runs: ``python forking.py URL WORKER_TYPE``.

Prints the exit codes of all children as JSON.
"""

import atexit
import json
import os
import sys
import time
from pathlib import Path

if sys.argv[2:] == ["greenlet"]:
    from gevent import monkey

    monkey.patch_all()

from lifecycle import Consumer, TaskQueue

PATIENCE = 30
CODES = Path("codes")

queue = TaskQueue(sys.argv[1])


def in_child(act):
    """Fork, and act in the child; return the child's exit code in the parent."""
    pid = os.fork()
    if not pid:
        return act()
    deadline = time.monotonic() + PATIENCE
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            return "hangs"
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(ended[1])


def fail():
    raise RuntimeError("in the child")


ACTS = {
    "returns": lambda: "a value",
    "exits": lambda: sys.exit(3),
    "exits with None": lambda: sys.exit(),
    "exits with a reason": lambda: sys.exit("a reason"),
    "raises": fail,
}


@queue.task(timeout=PATIENCE)
def plain(act):
    return in_child(ACTS[act])


@queue.task(timeout=PATIENCE)
async def asynchronous(act):
    return in_child(ACTS[act])


@queue.task()
def after(number):
    return number


@queue.task()
def hooked():
    return os.getpid()


def forks_once(place, act):
    """Return a handler or hook that forks for the task `hooked`, and notes the child's exit code by its place."""

    def fork(*arguments):
        if any(getattr(one, "name", None) == hooked.name for one in arguments):
            parent, code = os.getpid(), in_child(ACTS[act])
            if os.getpid() != parent:
                return
            with CODES.open("a") as file:
                file.write(f"{place} {code}\n")

    fork.__qualname__ = place
    return fork


queue.pre_execute("before")(lambda task: forks_once("before", "returns")(task))
queue.post_execute("after")(lambda task, value, error: forks_once("after", "exits")(task))
queue.signal("executing")(lambda signal, task: forks_once("executing", "raises")(task))
queue.signal("complete")(lambda signal, task: forks_once("complete", "exits")(task))


def stop_and_exit(consumer):
    """Look at the parent's consumer from a child, and exit; at its end the child calls `consumer.stop`."""
    assert consumer.state is None
    consumer.stop()
    sys.exit(5)


def start_again(consumer):
    """Run a consumer of one's own in a child."""
    consumer.start()
    assert after(1).get(timeout=PATIENCE) == 1
    consumer.stop()
    os._exit(6)


def main():
    consumer = Consumer(queue, 2, sys.argv[2], health="127.0.0.1:0")
    consumer.start()
    atexit.register(consumer.stop)
    functions = [plain] if sys.argv[2] == "greenlet" else [plain, asynchronous]  # gevent forks in the main thread only
    codes = {act: [function(act).get(timeout=60) for function in functions] for act in ACTS}
    codes["hooks"] = []
    CODES.touch()
    assert hooked().get(timeout=60) is not None
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and len(codes["hooks"]) < 4:
        time.sleep(0.01)
        codes["hooks"] = sorted(CODES.read_text().splitlines())
    codes["program"] = in_child(lambda: stop_and_exit(consumer))
    if sys.argv[2] == "thread":
        codes["consumer of its own"] = in_child(lambda: start_again(consumer))
    codes["after"] = [after(number).get(timeout=60) for number in range(3)]
    codes["state"] = consumer.state
    codes["name"] = plain.name
    consumer.stop()
    sys.stdout.write(json.dumps(codes))


if __name__ == "__main__":
    main()
