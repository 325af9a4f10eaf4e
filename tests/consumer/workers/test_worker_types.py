"""Each kind of worker on each kind of store: one suite for all, since what is promised is the same."""

from signal import SIGINT, SIGKILL, SIGTERM

import pytest
from support.postgres import postgres_store_url, unused_name
from support.processes import LEASE, LONG, LONG_AGO, PATIENCE, end, opened, said, settled, signals, states
from support.profiles import crossed

from lifecycle.storage import SCHEMES

PUT_BACK = "queued executing interrupted queued"
KINDS = {"thread": 2, "process": 2, "greenlet": 2, "asyncio": 1}
"""How many workers a consumer has of each kind that is to run two tasks at once."""
STORES = [store for store in ("sqlite", "postgres", "redis") if store in SCHEMES]


@pytest.fixture
def url(request):
    """Of a store of the test's own; ``None``: the file of `Works`."""
    if request.param == "postgres":
        yield postgres_store_url(request.getfixturevalue("postgres"), schema=unused_name())
    elif request.param == "redis":
        from support.redis_server import delete_test_keys, redis_store_url, require_server  # noqa: PLC0415 -- comes with the adapter

        require_server()
        yield redis_store_url()
        delete_test_keys()
    else:
        yield None


def kept_out(works):
    lock = works.queue.lock_task("chores")
    lock.acquire()
    return works.tasks.locked()


def revoked_before(works):
    works.tasks.unneeded.revoke()
    return works.tasks.unneeded()


def cancel_requested(name):
    """It runs, and is called off."""

    def act(works):
        result = getattr(works.tasks, name)()
        works.wire.wait_for(id=result.id, note="begun")
        works.queue.cancel(result.id)
        return result

    return act


def for_later(works):
    result = works.tasks.add.schedule((1, 2), delay=0.4)
    works.wire.wait_for(id=result.id, signal="scheduled")
    return result


SCENARIOS = {
    "for later": (for_later, "scheduled executing complete"),
    "it is called off": (cancel_requested("linger"), "executing canceled"),
    "an async one is called off": (cancel_requested("linger_async"), "executing canceled"),
    "the lock is taken": (kept_out, "executing locked"),
    "its function is revoked": (revoked_before, "revoked"),
    "a call": (lambda works: works.tasks.add(1, 2), "executing complete"),
    "an async call": (lambda works: works.tasks.add_async(1, 2), "executing complete"),
    "a retry": (lambda works: works.tasks.hasty(), "executing error retrying enqueued executing complete"),
    "an async retry": (lambda works: works.tasks.hasty_async(), "executing error retrying enqueued executing complete"),
    "a retry after a delay": (
        lambda works: works.tasks.flaky(),
        "executing error retrying scheduled executing complete",
    ),
    "the task asks for a retry": (lambda works: works.tasks.polite(), "executing retrying enqueued executing complete"),
    "no retry is left": (lambda works: works.tasks.hopeless(), "executing error"),
    "it runs too long": (lambda works: works.tasks.endless(), "executing timeout"),
    "an async one runs too long": (lambda works: works.tasks.endless_async(), "executing timeout"),
    "a hook cancels it": (lambda works: works.tasks.unwanted(), "executing canceled"),
    "past its expiry": (lambda works: works.tasks.add.schedule((1, 2), expires=LONG_AGO), "expired"),
    "it exits": (lambda works: works.tasks.exits(), "executing error"),
    "an async one exits": (lambda works: works.tasks.exits_async(), "executing error"),
    "its result cannot be kept": (lambda works: works.tasks.unserializable(), "executing error"),
    "it is told of itself": (lambda works: works.tasks.known(), "executing complete"),
    "an async one is told of itself": (lambda works: works.tasks.known_async(), "executing complete"),
}
VALUES = {"a call": 3, "an async call": 3, "for later": 3, "a retry": "OK", "an async retry": "OK"}


@pytest.mark.parametrize(("url", "kind"), crossed(STORES, [*KINDS], first=1), indirect=["url"])
def test_scenarios(tmp_path, url, kind):
    """Workers of each kind send what the law promises, agree with the history, and call each hook once in each worker."""
    with opened(tmp_path, url=url, lease=LONG) as works:
        consumer = works.hire("-k", kind, "-w", "2")
        results = {name: act(works) for name, (act, _) in SCENARIOS.items()}
        settled(works.queue, *results.values())
        promised = {name: promise for name, (_, promise) in SCENARIOS.items()}
        assert {name: signals(result) for name, result in results.items()} == promised
        assert {name: results[name].get() for name in VALUES} == VALUES
        for name in "it is told of itself", "an async one is told of itself":
            assert results[name].get() == [results[name].id, 1, "executing"]
        for name in "it is called off", "an async one is called off":
            assert works.wire.heard(id=results[name].id, note="left"), name

        # SIGINT lets what runs come to its end, and claims nothing more.
        running = [works.tasks.linger(), works.tasks.linger_async()]
        for result in running:
            works.wire.wait_for(id=result.id, note="begun")
        consumer.send_signal(SIGINT)
        said(consumer, "stopping")
        waiting = works.tasks.add(1, 2)
        works.open_gate()
        assert consumer.wait(PATIENCE) == 0
        works.wire.hang_up()
        assert [states(result) for result in running] == ["queued executing complete"] * 2
        assert states(waiting) == "queued"
        assert {name: works.wire.signals(result) for name, result in results.items()} == promised
        for note in "up", "up, async", "down", "down, async":
            assert len(works.wire.heard(note=note)) == KINDS[kind], note


@pytest.mark.parametrize(("url", "kind"), crossed(STORES, [*KINDS]), indirect=["url"])
def test_stops(tmp_path, url, kind):
    """Workers of each kind put back what they run at SIGTERM; what a killed consumer ran is run by another one."""
    with opened(tmp_path, url=url, lease=LEASE) as works:
        first = works.hire("-k", kind, "-w", "2", "--grace", str(PATIENCE))
        results = [works.tasks.linger(), works.tasks.linger_async()]
        for result in results:
            works.wire.wait_for(id=result.id, note="begun")
        assert end(first, SIGTERM) == 0
        assert [states(result) for result in results] == [PUT_BACK] * 2
        for result in results:
            assert works.wire.heard(id=result.id, note="left")
            assert works.wire.signals(result) == "executing interrupted enqueued"

        second = works.hire("-k", kind, "-w", "2")
        assert settled(works.queue, *results) == ["complete"] * 2
        assert [result.get() for result in results] == [2, 2]
        lost = [works.tasks.linger(), works.tasks.linger_async()]
        for result in lost:
            works.wire.wait_for(id=result.id, note="begun")
        end(second, SIGKILL)
        third = works.hire("-k", kind, "-w", "2")
        assert settled(works.queue, *lost) == ["complete"] * 2
        assert [states(result) for result in lost] == [f"{PUT_BACK} executing complete"] * 2
        assert [result.get() for result in lost] == [2, 2]
        assert end(third) == 0


@pytest.mark.parametrize(("grace", "kind"), crossed(["0", "0.3"], ["thread", "process", "asyncio"]))
def test_a_thread_that_is_left_behind(tmp_path, kind, grace):
    """A consumer that is terminated puts back what runs, and ends, also if a body has started a thread that does not."""
    with opened(tmp_path, lease=LONG) as works:
        consumer = works.hire("-k", kind, "--grace", grace)
        result = works.tasks.left_behind()
        works.wire.wait_for(id=result.id, note="begun")
        assert end(consumer, SIGTERM) == 0
        assert states(result) == PUT_BACK
        said = "exiting without threads that tasks have left running" in consumer.log.read_text()
        assert said == (kind != "process")  # which is killed
