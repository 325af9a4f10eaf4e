"""A broker of certificates: orders at a flaky authority, with hooks, retries, locks, priorities and revoked orders."""

import json
import os
import sys
import time
from collections import defaultdict
from datetime import datetime, timedelta

from huey import CancelExecution, RetryTask, SqliteHuey
from huey.exceptions import TaskException, TaskLockedException

huey = SqliteHuey("certificates", filename=os.environ["PROGRAM_DB"])

authority = {"failures": defaultdict(int), "ready": defaultdict(int)}
blocked = {"spam.example"}
audit, signals, names = [], defaultdict(list), {}


def shown(args):
    """Return arguments for a list; of an error only that there is one."""
    return ["an error" if isinstance(arg, Exception) else arg for arg in args]


@huey.signal()
def record(signal, task, exc=None):
    signals[task.id].append(signal)
    names.setdefault(task.id, f"{task.name}{shown(task.args)}")
    if exc is not None:
        audit.append(f"{task.name} failed with {type(exc).__name__}, {task.retries} retries left")


@huey.on_startup()
def open_connection():
    authority["connected"] = True


@huey.pre_execute()
def refuse_blocked(task):
    if task.args and task.args[0] in blocked:
        raise CancelExecution(f"{task.args[0]} is blocked")


@huey.pre_execute()
def note_begin(task):
    args, kwargs = task.data
    audit.append(f"begin {task.name}{shown(args)} {sorted(kwargs)}")


@huey.post_execute()
def note_end(task, value, exc):
    audit.append(f"end {task.name}{shown(task.args)}: {value} {type(exc).__name__}")


@huey.task(retries=2, retry_delay=1, priority=10)
def order(domain, failures=0):
    """Order a certificate; the authority fails some times first."""
    if authority["failures"][domain] < failures:
        authority["failures"][domain] += 1
        raise ConnectionError(f"{domain}: try {authority['failures'][domain]}")
    return f"certificate of {domain}"


@huey.task()
def await_validation(domain, polls):
    """Ask again and again until the authority has validated a domain."""
    authority["ready"][domain] += 1
    if authority["ready"][domain] < polls:
        raise RetryTask("not yet", delay=0.1)
    return authority["ready"][domain]


@huey.task(context=True, owner="broker")
@huey.lock_task("account")
def rotate_key(task=None):
    """Replace the key of the broker's account; two at a time would break it."""
    huey.put("account-key", {"task": task.id[:0], "owner": task.owner, "serial": (1, 2)})
    return task.priority or 0


@huey.task(expires=timedelta(hours=1), retries=1)
def renew(domain):
    """Renew a certificate."""
    if huey.is_locked("account"):
        raise TaskLockedException("account")
    return f"renewed {domain}"


@huey.task()
def install(certificate, server):
    """Install a certificate on a server, which gives it a name of its own."""
    return {"server": server, "of": certificate.rpartition(" ")[2]}


@huey.task()
def announce(server, of):
    """Write to the customer."""
    return f"{of} is on {server}"


@huey.task()
def apologize(domain, error):
    """Write to the customer that there is no certificate."""
    audit.append(f"no certificate of {domain}: {isinstance(error, Exception)}")


@huey.task()
def give_up(domain, retry):
    """End without a certificate."""
    raise CancelExecution(f"{domain} withdrawn", retry=retry)


def outcome(result):
    """Return the value of a task, or the error's text."""
    try:
        return result.get(blocking=True, timeout=20)
    except TaskException as error:
        return f"{type(error).__name__}: {error.metadata['error']}"


def main():
    """Place the orders, run a consumer until they have ended, and print all that can be seen."""
    asked = {
        "plain": order("a.example"),
        "flaky": order("b.example", failures=2),
        "hopeless": order("c.example", failures=9, retries=1),
        "urgent": order("d.example", priority=50),
        "validated": await_validation("a.example", 3),
        "key": rotate_key(),
        "renewed": renew("a.example"),
        "withdrawn": give_up("e.example", False),
        "later": order.schedule(("f.example",), delay=1),
        "map": renew.map(["g.example", "h.example"]),
    }
    unwanted, refused = order("x.example"), order("spam.example")
    unwanted.revoke()
    assert unwanted.is_revoked()
    late = renew("late.example", expires=datetime.now() - timedelta(seconds=5))
    installed = huey.enqueue(order.s("i.example").then(install, "web1").then(announce))
    failed = huey.enqueue(order.s("j.example", failures=9, retries=0).error(apologize, "j.example"))
    consumer = huey.create_consumer(workers=1, initial_delay=0.01, max_delay=0.05)
    consumer.start()
    found = {}
    for label, result in asked.items():
        if label == "flaky":  # its first errors are outcomes, too
            while signals[result.id][-1:] != ["complete"]:
                consumer_turn()
        if label == "hopeless":
            while signals[result.id].count("error") < 2 or sum("end order['c.ex" in line for line in audit) < 2:
                consumer_turn()
        found[label] = [outcome(one) for one in result] if label == "map" else outcome(result)
    ends = ["revoked"], ["canceled"], ["expired"]
    while [signals[one.id][-1:] for one in (unwanted, refused, late)] != [*ends]:
        consumer_turn()
    found["installed"], found["failed"] = installed.get(blocking=True, timeout=20), outcome(failed)
    while (
        not any("no certificate of j" in line for line in audit) or sum("end apologize" in line for line in audit) < 1
    ):
        consumer_turn()
    consumer.stop(graceful=True)
    found |= {"unwanted": unwanted.get(), "late": late.get(), "pending": len(huey), "scheduled": huey.scheduled_count()}
    found["key-stored"], found["key-again"] = huey.get("account-key"), huey.get("account-key")
    found["connected"], found["audit"] = authority["connected"], sorted(audit)
    found["signals"] = sorted([names[task_id], *sent] for task_id, sent in signals.items())
    json.dump(found, sys.stdout, default=str)


def consumer_turn():
    """Let the consumer work."""
    time.sleep(0.01)


if __name__ == "__main__":
    main()
