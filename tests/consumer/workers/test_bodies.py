"""Attempts in workers of each type: their context, their exception in handlers, and the end of all that they held."""

import pytest
from support.processes import LONG, consumer_group, settled, until

KINDS = ["thread", "process", "greenlet", "asyncio"]


@pytest.fixture(params=KINDS)
def group(request, tmp_path):
    """Consumer with one worker, and with no garbage collector, that runs `programs/bodies.py`."""
    with consumer_group(tmp_path, "bodies", lease=LONG) as group:
        group.start_consumer("-k", request.param)
        yield group


def test_failed_attempts_free_their_memory_at_once(group):
    """All that a function held when it failed is freed at once, without a run of the garbage collector."""
    results = [function() for _ in range(3) for function in (group.tasks.fails_async, group.tasks.fails)]
    assert set(settled(group.queue, *results)) == {"error"}
    # The last worker thread may still be between the settlement and its next task.
    for count in (group.tasks.count_async, group.tasks.count):
        until(lambda count=count: count().get(timeout=LONG) == 0, "the end of all objects")


def test_context_of_an_attempt_is_its_own(group):
    """Hooks and function of an attempt share a context, in which nothing of other attempts or handlers is left."""
    for function in (group.tasks.sets, group.tasks.sets_async) * 2:
        result = function()
        assert result.get(timeout=LONG) == "hook"
        group.events.wait_for(id=result.id, signal="complete", found="nobody")
        (before,) = [event["before"] for event in group.events.received(id=result.id) if "before" in event]
        (after,) = [event["after"] for event in group.events.received(id=result.id) if "after" in event]
        assert (before, after) == ("nobody", "body")


def test_handlers_find_the_exception_as_it_was_raised(group):
    """In a handler of `error` the exception is the one being handled, and the task has the retries of its attempt."""
    for function in (group.tasks.fails, group.tasks.fails_async):
        result = function()
        group.events.wait_for(id=result.id, signal="error", attempt=2)
        events = group.events.received(id=result.id)
        caught = [(event["signal"], event["caught"]) for event in events if event.get("same")]
        names = ["executing", "error", "retrying", "enqueued", "executing", "error"]
        assert caught == [(name, repr(ValueError("second")) if name == "error" else "None") for name in names]
        seen = [(e["attempt"], e["retries"], e["eta"]) for e in events if "retries" in e and e["signal"] == "error"]
        assert seen == [(1, 1, None), (2, 0, None)]
