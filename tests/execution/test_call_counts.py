"""The number of Python calls that each task costs."""

import sys
from pathlib import Path

import pytest

import lifecycle
from lifecycle.execution.worker import Worker

FOLDERS = tuple(str(Path(lifecycle.__file__).parent / name) for name in ("", "consumer"))

LIMITS = {"memory": (26, 74), "sqlite": (29, 98), "redis": (39, 106), "postgres": (83, 246)}
"""Kind of store → the largest number of calls for an enqueue and for an execution: what was measured, and a few more."""


def calls_of(action):
    """Return the names of the library's functions that an action calls in this thread."""
    names = []

    def note(frame, event, _):
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(FOLDERS) and not code.co_name.startswith("<"):
            names.append(f"{Path(code.co_filename).name}:{code.co_qualname}")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(before)
    return names


@pytest.mark.parametrize("kind", LIMITS)
def test_each_task_costs_few_calls(kind, make):
    """An enqueue and an execution without handlers, hooks and options stay below a number of Python calls per store."""
    queue = make()
    add = queue.task(name="add")(lambda a, b: a + b)
    worker = Worker(queue.engine, "worker")
    for _ in range(5):  # opens connections, fills caches
        add(1, 2)
        worker.work(lambda: True)
    enqueue = calls_of(lambda: add(1, 2))
    execution = calls_of(lambda: worker.work(lambda: True))
    limits = LIMITS[kind]
    assert len(enqueue) <= limits[0], enqueue
    assert len(execution) <= limits[1], execution
