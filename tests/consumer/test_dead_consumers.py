"""A consumer that is killed on the same host: its tasks do not wait for the end of their leases."""

import psutil
import pytest
from conftest import on_server
from support.processes import LONG, consumer_group, settled, states, stop_process

from lifecycle.execution.process_name import has_ended

PAIRS = [("sqlite", kind) for kind in ("thread", "process", "asyncio")] + [("redis", "process"), ("postgres", "thread")]
LINGERS = {"asyncio": "linger_async"}


@pytest.fixture(params=PAIRS, ids="-".join)
def group(request, tmp_path):
    """Consumers of `programs/chores.py` on one kind of store, with leases that no test waits for."""
    store, kind = request.param
    url = None if store == "sqlite" else on_server(store, request)
    with consumer_group(tmp_path, url=url, lease=LONG) as group:
        group.options = "-k", kind, "-w", "2"
        group.linger = getattr(group.tasks, LINGERS.get(kind, "linger"))
        yield group


def test_tasks_of_a_killed_consumer_run_on_another_one_at_once(group):
    """The tasks of a consumer that is killed with all its processes run on another one of its host, before the lease."""
    killed = group.start_consumer(*group.options)
    result = group.linger()
    group.events.wait_for(id=result.id, note="begun")
    other = group.start_consumer(*group.options)
    worker = result.task.worker
    assert not has_ended(worker)
    processes = [*psutil.Process(killed.pid).children(recursive=True), psutil.Process(killed.pid)]
    for process in processes:  # first all are stopped: whichever outlives the others would put the task back itself
        process.suspend()
    for process in processes:
        process.kill()
    killed.wait()
    assert settled(group.queue, result) == ["complete"]
    assert states(result) == "queued executing interrupted queued executing complete"
    assert (result.get(), result.task.interruptions) == (2, 1)
    assert f"workers={worker}" in other.log.read_text()
    assert stop_process(other) == 0
