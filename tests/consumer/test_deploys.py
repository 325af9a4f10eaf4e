"""Two versions of a program side by side on one queue, as real consumers."""

import pytest
from conftest import on_server
from support.processes import LONG, consumer_group, settled, states, stop_process, wait_for_log

COUNT = 10
"""Tasks of each function."""
WARNING = "no function is registered here as 'chores.fresh'"
PAIRS = [("sqlite", kind) for kind in ("thread", "process", "asyncio")] + [("redis", "thread"), ("postgres", "process")]


@pytest.fixture(params=PAIRS, ids="-".join)
def group(request, tmp_path):
    """Consumers of `programs/chores.py` on one kind of store, and the options of the command line for a type of workers."""
    store, kind = request.param
    url = None if store == "sqlite" else on_server(store, request)
    with consumer_group(tmp_path, url=url, lease=LONG) as group:
        group.options = "-k", kind, "-w", "2"
        yield group


def test_consumer_leaves_new_functions_to_new_consumers(group):
    """A consumer of the old version runs what it knows, and leaves the tasks of new functions to the new version."""
    old = group.start_consumer(*group.options, setting={"version": 1})
    fresh = [group.tasks.fresh(number) for number in range(COUNT)]
    wait_for_log(old, WARNING)
    added = [group.tasks.add(number, 1) for number in range(COUNT)]
    assert settled(group.queue, *added) == ["complete"] * COUNT
    assert {result.state for result in fresh} <= {"queued", "executing"}
    new = group.start_consumer(*group.options)
    assert settled(group.queue, *fresh) == ["complete"] * COUNT
    assert [result.get() for result in fresh] == [-number for number in range(COUNT)]
    for result in fresh:
        assert (result.task.retries, result.task.attempt, result.task.interruptions) == (1, 1, 0)
        assert states(result).removesuffix(" executing complete").split(" executing interrupted ")[0] == "queued"
    assert [stop_process(consumer) for consumer in (old, new)] == [0, 0]
    processes = 2 if "process" in group.options else 1
    assert 1 <= old.log.read_text().count(WARNING) <= processes
    assert WARNING not in new.log.read_text()


def test_new_function_waits_while_only_old_consumers_run(group):
    """With old consumers only, the tasks of a new function wait, and the program can see so."""
    old = group.start_consumer(*group.options, setting={"version": 1})
    waiting = group.tasks.fresh(1)
    wait_for_log(old, WARNING)
    assert settled(group.queue, group.tasks.add(1, 2)) == ["complete"]
    assert stop_process(old) == 0
    assert waiting.state == "queued"
    function = group.queue.engine.functions.pop("chores.fresh")
    assert group.queue.unknown_functions() == {"chores.fresh": 1}
    group.queue.engine.functions["chores.fresh"] = function
    assert group.queue.unknown_functions() == {}
