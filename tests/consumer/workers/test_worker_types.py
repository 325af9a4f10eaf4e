"""Each type of worker on each type of store: one suite for all types."""

from signal import SIGINT, SIGKILL, SIGTERM

import pytest
from support.postgres import postgres_store_url, unused_name
from support.processes import (
    LEASE,
    LONG,
    LONG_AGO,
    PATIENCE,
    consumer_group,
    settled,
    signals,
    states,
    stop_process,
    wait_for_log,
)
from support.profiles import crossed

from lifecycle.storage import SCHEMES

REQUEUED_STATES = "queued executing interrupted queued"
KINDS = {"thread": 2, "process": 2, "greenlet": 2, "asyncio": 1}
"""Number of workers of each type with which a consumer runs two tasks at once."""
STORES = [store for store in ("sqlite", "postgres", "redis") if store in SCHEMES]


@pytest.fixture
def url(request):
    """URL of a store that no other test uses; None: an SQLite file of the group."""
    if request.param == "postgres":
        yield postgres_store_url(request.getfixturevalue("postgres"), schema=unused_name())
    elif request.param == "redis":
        from support.redis_server import delete_test_keys, redis_store_url, require_server  # noqa: PLC0415 -- comes with the adapter

        require_server()
        yield redis_store_url()
        delete_test_keys()
    else:
        yield None


def with_its_lock_taken(group):
    lock = group.queue.lock_task("chores")
    lock.acquire()
    return group.tasks.locked()


def revoked_before(group):
    group.tasks.unneeded.revoke()
    return group.tasks.unneeded()


def canceled_while_it_runs(name):
    """Return an act that cancels a running task."""

    def act(group):
        result = getattr(group.tasks, name)()
        group.events.wait_for(id=result.id, note="begun")
        group.queue.cancel(result.id)
        return result

    return act


def scheduled(group):
    result = group.tasks.add.schedule((1, 2), delay=0.4)
    group.events.wait_for(id=result.id, signal="scheduled")
    return result


SCENARIOS = {
    "for later": (scheduled, "scheduled executing complete"),
    "it is canceled": (canceled_while_it_runs("linger"), "executing canceled"),
    "an async one is canceled": (canceled_while_it_runs("linger_async"), "executing canceled"),
    "the lock is taken": (with_its_lock_taken, "executing locked"),
    "its function is revoked": (revoked_before, "revoked"),
    "a call": (lambda group: group.tasks.add(1, 2), "executing complete"),
    "an async call": (lambda group: group.tasks.add_async(1, 2), "executing complete"),
    "a retry": (lambda group: group.tasks.hasty(), "executing error retrying enqueued executing complete"),
    "an async retry": (lambda group: group.tasks.hasty_async(), "executing error retrying enqueued executing complete"),
    "a retry after a delay": (
        lambda group: group.tasks.flaky(),
        "executing error retrying scheduled executing complete",
    ),
    "the task asks for a retry": (lambda group: group.tasks.polite(), "executing retrying enqueued executing complete"),
    "no retry is left": (lambda group: group.tasks.hopeless(), "executing error"),
    "it runs too long": (lambda group: group.tasks.endless(), "executing timeout"),
    "an async one runs too long": (lambda group: group.tasks.endless_async(), "executing timeout"),
    "a hook cancels it": (lambda group: group.tasks.unwanted(), "executing canceled"),
    "past its expiry": (lambda group: group.tasks.add.schedule((1, 2), expires=LONG_AGO), "expired"),
    "it exits": (lambda group: group.tasks.exits(), "executing error"),
    "an async one exits": (lambda group: group.tasks.exits_async(), "executing error"),
    "its result cannot be kept": (lambda group: group.tasks.unserializable(), "executing error"),
    "it gets its context": (lambda group: group.tasks.known(), "executing complete"),
    "an async one gets its context": (lambda group: group.tasks.known_async(), "executing complete"),
}
VALUES = {"a call": 3, "an async call": 3, "for later": 3, "a retry": "OK", "an async retry": "OK"}

HANDED_BACK = "executing interrupted enqueued "
"""On a busy machine a worker may seem stuck: the tasks that it has claimed and not begun are given to other workers."""


@pytest.mark.parametrize(("url", "kind"), crossed(STORES, [*KINDS], first=1), indirect=["url"])
def test_worker_type_sends_the_signals_of_each_scenario(tmp_path, url, kind):
    """Workers of each type send the signals of the law, agree with the history, and call each hook once."""
    with consumer_group(tmp_path, url=url, lease=LONG) as group:
        consumer = group.start_consumer("-k", kind, "-w", "2")
        results = {name: act(group) for name, (act, _) in SCENARIOS.items()}
        settled(group.queue, *results.values())
        expected = {name: promise for name, (_, promise) in SCENARIOS.items()}
        sent = {name: signals(result).replace(HANDED_BACK, "") for name, result in results.items()}
        assert sent == expected
        assert {name: results[name].get() for name in VALUES} == VALUES
        for name in "it gets its context", "an async one gets its context":
            assert results[name].get() == [results[name].id, 1, "executing"]
        for name in "it is canceled", "an async one is canceled":
            assert group.events.received(id=results[name].id, note="left"), name

        # SIGINT lets running tasks finish, and no more task is claimed.
        running = [group.tasks.linger(), group.tasks.linger_async()]
        for result in running:
            group.events.wait_for(id=result.id, note="begun")
        consumer.send_signal(SIGINT)
        wait_for_log(consumer, "stopping")
        waiting = group.tasks.add(1, 2)
        group.release_tasks()
        assert consumer.wait(PATIENCE) == 0
        group.events.close()
        assert [states(result) for result in running] == ["queued executing complete"] * 2
        assert states(waiting) == "queued"
        assert {name: group.events.signals(result) for name, result in results.items()} == expected
        for note in "up", "up, async", "down", "down, async":
            assert len(group.events.received(note=note)) == KINDS[kind], note


@pytest.mark.parametrize(("url", "kind"), crossed(STORES, [*KINDS]), indirect=["url"])
def test_worker_type_requeues_at_sigterm_and_recovers_after_a_kill(tmp_path, url, kind):
    """Workers of each type requeue their tasks at SIGTERM; the tasks of a killed consumer run on another one."""
    with consumer_group(tmp_path, url=url, lease=LEASE) as group:
        first = group.start_consumer("-k", kind, "-w", "2", "--grace", str(PATIENCE))
        results = [group.tasks.linger(), group.tasks.linger_async()]
        for result in results:
            group.events.wait_for(id=result.id, note="begun")
        assert stop_process(first, SIGTERM) == 0
        assert [states(result) for result in results] == [REQUEUED_STATES] * 2
        for result in results:
            assert group.events.received(id=result.id, note="left")
            assert group.events.signals(result) == "executing interrupted enqueued"

        second = group.start_consumer("-k", kind, "-w", "2")
        assert settled(group.queue, *results) == ["complete"] * 2
        assert [result.get() for result in results] == [2, 2]
        lost = [group.tasks.linger(), group.tasks.linger_async()]
        for result in lost:
            group.events.wait_for(id=result.id, note="begun")
        stop_process(second, SIGKILL)
        third = group.start_consumer("-k", kind, "-w", "2")
        assert settled(group.queue, *lost) == ["complete"] * 2
        assert [states(result) for result in lost] == [f"{REQUEUED_STATES} executing complete"] * 2
        assert [result.get() for result in lost] == [2, 2]
        assert stop_process(third) == 0


@pytest.mark.parametrize(("grace", "kind"), crossed(["0", "0.3"], ["thread", "process", "asyncio"]))
def test_terminated_consumer_ends_in_spite_of_a_leftover_thread(tmp_path, kind, grace):
    """A terminated consumer requeues its tasks and ends, even if a function has started a thread that does not end."""
    with consumer_group(tmp_path, lease=LONG) as group:
        consumer = group.start_consumer("-k", kind, "--grace", grace)
        result = group.tasks.left_behind()
        group.events.wait_for(id=result.id, note="begun")
        assert stop_process(consumer, SIGTERM) == 0
        assert states(result) == REQUEUED_STATES
        ends_without_threads = "exiting without threads that tasks have left running" in consumer.log.read_text()
        assert ends_without_threads == (kind != "process")  # a process is killed
