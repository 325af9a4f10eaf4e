"""Greenlet workers, in processes that gevent has patched; the process of the tests is not patched."""

import pytest
from conftest import PATIENCE
from support.postgres import postgres_store_url, unused_name
from support.processes import LONG, consumer_group, settled, stop_process
from support.profiles import sampled

from lifecycle import ConfigurationError, Consumer, TaskException
from lifecycle.consumer.workers import gevent_ as greenlets


@pytest.fixture(params=sampled(["sqlite", "postgres"]))
def group(request, tmp_path):
    """Consumers of `programs/chores.py`, on each store."""
    url = None
    if request.param == "postgres":
        url = postgres_store_url(request.getfixturevalue("postgres"), schema=unused_name())
    with consumer_group(tmp_path, url=url, lease=LONG) as group:
        yield group


def test_fifty_greenlets_run_at_once_and_async_functions_time_out(group):
    """Fifty functions wait at once; async ones run in threads, and are timed out also where they compute.

    An async function cannot use its queue there: the error says so.
    """
    consumer = group.start_consumer("-k", "greenlet", "-w", "50", "-q")
    results = list(group.tasks.meet.map([50] * 50))
    assert settled(group.queue, *results) == ["complete"] * 50
    computing, endless = group.tasks.compute(), [group.tasks.endless() for _ in range(20)]
    assert settled(group.queue, computing, *endless) == ["timeout"] * 21
    with pytest.raises(TaskException, match="async function cannot use its queue in a greenlet worker"):
        group.tasks.passes_on(1, 2).get(timeout=PATIENCE)
    assert stop_process(consumer) == 0
    group.events.close()
    for note in "up", "up, async", "down", "down, async":
        assert len(group.events.received(note=note)) == 50


@pytest.mark.parametrize(
    ("found", "what"),
    [
        (True, r"greenlets need gevent.monkey.patch_all\(\), before anything else is imported; `lifecycle run -k"),
        (False, r"greenlets need gevent: pip install 'task-lifecycle\[greenlet\]'"),
    ],
)
def test_greenlet_workers_are_refused_without_patched_gevent(make, monkeypatch, folder, cli, found, what):
    """In a process without gevent, or not patched by gevent, greenlet workers are refused with a way out."""
    monkeypatch.setattr(greenlets, "find_spec", lambda name: object() if found else None)
    with pytest.raises(ConfigurationError, match=what):
        Consumer(make(), worker_type="greenlet")
    if not found:
        code, out, err = cli("run", "tasks:queue", "-k", "greenlet")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "greenlets need gevent: pip install" in err
