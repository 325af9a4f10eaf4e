"""Workers that are greenlets, in processes that gevent has patched: this one is not."""

import pytest
from conftest import PATIENCE
from support.postgres import postgres_store_url, unused_name
from support.processes import LONG, end, opened, settled
from support.profiles import sampled

from lifecycle import ConfigurationError, Consumer, TaskException
from lifecycle.consumer.workers import gevent_ as greenlets


@pytest.fixture(params=sampled(["sqlite", "postgres"]))
def works(request, tmp_path):
    """Consumers of `programs/chores.py`, and their store."""
    url = None
    if request.param == "postgres":
        url = postgres_store_url(request.getfixturevalue("postgres"), schema=unused_name())
    with opened(tmp_path, url=url, lease=LONG) as works:
        yield works


def test_fifty(works):
    """Fifty bodies wait at once; async ones, each in a thread of its worker's, are timed out also where they compute.

    They cannot use their queue there, which is said.
    """
    consumer = works.hire("-k", "greenlet", "-w", "50", "-q")
    results = list(works.tasks.meet.map([50] * 50))
    assert settled(works.queue, *results) == ["complete"] * 50
    computing, endless = works.tasks.compute(), [works.tasks.endless() for _ in range(20)]
    assert settled(works.queue, computing, *endless) == ["timeout"] * 21
    with pytest.raises(TaskException, match="async function cannot use its queue in a greenlet worker"):
        works.tasks.passes_on(1, 2).get(timeout=PATIENCE)
    assert end(consumer) == 0
    works.wire.hang_up()
    for note in "up", "up, async", "down", "down, async":
        assert len(works.wire.heard(note=note)) == 50


@pytest.mark.parametrize(
    ("found", "what"),
    [
        (True, r"greenlets need gevent.monkey.patch_all\(\), before anything else is imported; `lifecycle run -k"),
        (False, r"greenlets need gevent: pip install 'task-lifecycle\[greenlet\]'"),
    ],
)
def test_not_here(make, monkeypatch, folder, cli, found, what):
    """In a process that gevent has not patched, or where there is none, such workers are refused; it is said how to."""
    monkeypatch.setattr(greenlets, "find_spec", lambda name: object() if found else None)
    with pytest.raises(ConfigurationError, match=what):
        Consumer(make(), worker_type="greenlet")
    if not found:
        code, out, err = cli("run", "tasks:queue", "-k", "greenlet")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "greenlets need gevent: pip install" in err
