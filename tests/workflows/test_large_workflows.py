"""Workflows of thousands of tasks: no step costs more with more members."""

import sys
from pathlib import Path

import pytest

import lifecycle
from lifecycle import chord, group
from lifecycle.execution.worker import Worker

FOLDER = str(Path(lifecycle.__file__).parent)
FEW, MANY = 100, 10_000


def calls_of(action):
    """Return the number of calls, in C too, that an action makes, and its value."""
    count = 0

    def note(frame, event, _):
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        value = action()
    finally:
        sys.setprofile(before)
    return count, value


def run(queue):
    worker = Worker(queue.engine, "worker")
    worker.work(lambda: True)


def prices(make, write, check):
    """Return the calls per member of each step of a workflow's life, with few and with many members."""
    found = []
    for size in (FEW, MANY):
        queue = make()
        value = queue.task(name="value")(lambda n, *more: n)
        total = queue.task(name="total")(sum)
        written, node = calls_of(lambda: write(size, value, total))  # noqa: B023 -- called at once
        enqueued, result = calls_of(lambda: queue.enqueue(node))  # noqa: B023
        ran, _ = calls_of(lambda: run(queue))  # noqa: B023
        read, _ = calls_of(lambda: check(size, result))  # noqa: B023
        states, _ = calls_of(lambda: getattr(result, "whole", result).progress)  # noqa: B023
        found.append({"write": written, "enqueue": enqueued, "run": ran, "read": read, "states": states})
        found[-1] = {step: count / size for step, count in found[-1].items()}
        queue.flush()
    return found


@pytest.mark.untraced
@pytest.mark.parametrize("kind", ["memory"])
@pytest.mark.parametrize("shape", ["group", "chord", "fan-out", "chord of pipelines"])
def test_no_step_costs_more_with_more_members(kind, shape, make):
    """To write, enqueue, run and read a workflow costs as many calls per member with 10,000 members as with 100."""

    def write(size, value, total):
        if shape == "group":
            return group([value.s(n) for n in range(size)])
        if shape == "chord":
            return chord([value.s(n) for n in range(size)], total)
        if shape == "fan-out":
            return value.s(0) | group([value.s(n) for n in range(size)]) | total
        return chord([value.s(n) | value.s(n) for n in range(size)], total).error(total)

    def check(size, result):
        if shape == "group":
            assert list(result.as_completed(timeout=0)) == list(result)
            assert result.get() == list(range(size))
        else:
            last = result[-1] if shape == "fan-out" else result
            assert last.get() == sum(range(size))

    few, many = prices(make, write, check)
    for step, price in many.items():
        assert price <= few[step] * 1.1 + 1, (step, few, many)
