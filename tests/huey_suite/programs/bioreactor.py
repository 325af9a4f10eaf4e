"""The page of a bioreactor: periodic measurements, pumps with locks, a recipe of many steps, and a stop button."""

import json
import os
import sys
import threading
import time
from collections import defaultdict
from datetime import datetime

from huey import SqliteHuey, chord, crontab, group
from huey.api import PeriodicTask, Result, Task, TaskWrapper
from huey.exceptions import HueyException, TaskException, TaskLockedException
from huey.signals import SIGNAL_COMPLETE, SIGNAL_LOCKED

huey = SqliteHuey("bioreactor", filename=os.environ["PROGRAM_DB"], utc=False)

measured, sent, names = [], defaultdict(list), {}
pump = threading.Lock()


@huey.signal()
def record(signal, task, exc=None):
    sent[task.id].append(signal)
    names.setdefault(task.id, f"{task.name}{list(task.args)}")


@huey.signal(SIGNAL_LOCKED)
def busy(signal, task):
    measured.append(f"{task.name} found the pump busy")


@huey.periodic_task(crontab(minute="*/5", day="29", month="2"), priority=5)
def measure():
    """Measure the temperature, every five minutes of leap days: no test must run on one."""
    measured.append("temperature")


@huey.periodic_task(crontab(minute="0", hour="0,12", day="29", month="2"), name="calibrate")
def calibrate_probe():
    """Calibrate the probe, at noon and at midnight."""
    measured.append("calibrated")


@huey.periodic_task(lambda moment: (moment.year, moment.weekday(), moment.hour) == (2024, 3, 8))
def weekly_report():
    """Write the report, on Thursdays of that year."""
    measured.append("report")


@huey.task(retries=1)
@huey.lock_task("pump")
def feed(millilitres):
    """Pump nutrient solution; there is one pump."""
    assert pump.acquire(blocking=False), "two at the pump"
    try:
        return millilitres * 2
    finally:
        pump.release()


@huey.task()
def rate(amount, hours):
    """Return a rate."""
    return amount * hours


@huey.task()
def mean(rates):
    """Return the mean of some rates."""
    return sum(rates) / len(rates)


class Valve:
    """The valve, open while a task runs."""

    def __init__(self):
        self.opened = 0

    def __enter__(self):
        self.opened += 1
        return self

    def __exit__(self, *error):
        measured.append("valve shut")


valve = Valve()


@huey.context_task(valve, as_argument=True)
def drain(open_valve, litres):
    """Drain the reactor."""
    if litres > 10:
        raise ValueError("the tank is full")
    return open_valve.opened


@huey.task(context=True)
def step(number, task=None):
    """One step of the recipe."""
    return (number, task.name, task.retries, task.eta is None)


def until(condition):
    """Wait for a condition; fail after half a minute."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, (measured, sent)
        time.sleep(0.01)


def outcome(result):
    """Return the value of a task, or the error's text."""
    try:
        return result.get(blocking=True, timeout=20)
    except TaskException as error:
        return error.metadata["error"]


def pump_is_busy():
    """Return whether the lock of the pump is held."""
    try:
        with huey.lock_task("pump"):
            return False
    except HueyException as error:
        return type(error) is TaskLockedException


def look(found):
    """Look at the queue without a consumer, and drive it by hand."""
    assert isinstance(step, TaskWrapper)
    assert isinstance(measure.s(), PeriodicTask)
    for moment in (datetime(2024, 2, 29, 8, 5), datetime(2024, 2, 29, 0, 0), datetime(2024, 2, 29, 0, 1)):
        found[f"due {moment}"] = sorted(task.name for task in huey.read_periodic(moment))
    results = [step(n) for n in range(3)]
    later = step.schedule((9,), delay=3600)
    assert isinstance(later, Result)
    found["pending"] = [task.args[0] for task in huey.pending()]
    task = huey.dequeue()
    assert isinstance(task, Task)
    found["by hand"] = [huey.execute(task), len(huey), results[0].is_ready(), results[0].get()]
    while (task := huey.dequeue()) is not None:
        huey.execute(task)
    found["left"] = [len(huey), huey.scheduled_count(), [task.args[0] for task in huey.scheduled()]]
    found["rest"] = [result() for result in results[1:]]
    found["ready"] = [huey.ready_to_run(huey.scheduled()[0]), step.s(1).data, step.s(1, priority=7).priority]
    huey.flush()


def main():
    """Run the reactor for a while, and print its page."""
    found = {}
    look(found)
    consumer = huey.create_consumer(workers=2, initial_delay=0.01, max_delay=0.05)
    consumer.start()
    with huey.lock_task("pump") as lock:
        assert lock.is_locked()
        assert pump_is_busy()
        hungry = feed(1, retries=0)
        until(lambda: "locked" in sent[hungry.id])
    found["fed"] = [outcome(feed(n)) for n in (1, 2)]
    found["drained"] = [outcome(drain(1)), outcome(drain(99))]
    found["recipe"] = step.map(range(5))(blocking=True, timeout=20)
    found["batch"] = huey.enqueue(group([step.s(number) for number in (7, 8)]))(blocking=True, timeout=20)
    mixed = huey.enqueue(chord([rate.s(n, 2) for n in (1, 2)] + [rate.s(3, 2).then(rate, 10)], mean).then(rate, 3))
    found["mixed"] = [outcome(mixed), mixed.results(blocking=True, timeout=20), mixed.pipeline_results(True, 20)]
    due = huey.read_periodic(datetime(2024, 2, 29, 8, 0))
    for task in due:
        huey.enqueue(task)
    until(lambda: all(sent[task.id][-1:] == [SIGNAL_COMPLETE] for task in due))
    measure.revoke(revoke_once=True)
    stopped = measure()
    until(lambda: sent[stopped.id][-1:] == ["revoked"])
    found["revoked"] = [measure.is_revoked(), feed.is_revoked(), feed.retries, feed.call_local(4)]
    huey.put("setpoint", 37.5)
    found["setpoint"] = [huey.get("setpoint", peek=True), huey.get("setpoint"), huey.get("setpoint"), huey.delete("x")]
    consumer.stop(graceful=True)
    found["measured"] = sorted(measured)
    found["signals"] = sorted([names[task_id], *all_sent] for task_id, all_sent in sent.items())
    json.dump(found, sys.stdout, default=str)


if __name__ == "__main__":
    main()
