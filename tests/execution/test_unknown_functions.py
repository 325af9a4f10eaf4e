"""Tasks of functions that a process does not know: another version of the program runs them."""

import logging

import attrs
import pytest
from conftest import Heard, drain, states

from lifecycle import Task
from lifecycle.storage.base import Channel

PUT_BACK = "queued executing interrupted queued"


@pytest.fixture
def versions(make):
    """Two versions of a program on one store: the older one knows `plain` only, the newer one `fresh`, too."""
    old, new = make(), make()
    # In memory, too, both engines use one store.
    new.engine.replace_environment(attrs.evolve(new.engine.environment, storage=old.storage))
    for queue in old, new:
        queue.task(name="plain", retries=1)(lambda number: number)
    new.task(name="fresh", retries=1)(lambda number: -number)
    return old, new


def warnings(caplog):
    return [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]


def test_task_of_an_unknown_function_goes_back_as_it_was(make, caplog):
    """A task of an unknown function goes back to the queue, and spends no retry, no attempt and no interruption."""
    queue = make()
    heard = Heard(queue)
    gone = queue.task(name="gone", retries=2, retry_delay=9)(lambda number: number)
    result = gone(5)
    before = queue.get(result.id)
    function = queue.engine.functions.pop("gone")
    assert queue.run_next() is None
    assert queue.run_next() is None
    assert heard.story(result) == "enqueued executing interrupted enqueued"
    after = queue.get(result.id)
    assert (after.state, after.lease) == ("queued", None)
    assert [(one.retries, one.attempt, one.interruptions, one.eta) for one in (before, after)] == [(2, 0, 0, None)] * 2
    assert ["'gone'" in text for text in warnings(caplog)] == [True]
    queue.engine.functions["gone"] = function
    assert queue.run_next().state == "complete"
    assert queue.get(result.id).attempt == 1


def test_unknown_function_is_met_once(queue, caplog):
    """A process starts no task of a function that it has found to be unknown, and warns once of each such function."""
    results = [queue.enqueue(Task(f"{name} {number}", name)) for number in range(3) for name in ("one", "two")]
    for _ in range(3):
        assert queue.run_next() is None
    assert [states(result) for result in results] == [PUT_BACK] * 2 + ["queued"] * 4
    assert len(warnings(caplog)) == 2
    assert queue.unknown_functions() == {"one": 3, "two": 3}
    queue.task(name="one")(lambda: "run")
    assert {task.id for task in drain(queue)} == {"one 0", "one 1", "one 2"}
    assert queue.unknown_functions() == {"two": 3}


def test_unknown_tasks_hide_no_others(queue):
    """Tasks behind those of an unknown function run, in their order, also those that become due later."""
    queue.enqueue_many([Task(f"unknown {number}", "unknown", priority=1) for number in range(20)])
    ran = []
    known = queue.task(name="known")(ran.append)
    known(1), known.schedule((3,), delay=60), known(2)
    drain(queue, until=61)
    assert ran == [1, 2, 3]
    assert queue.counts()["queued"] == 20


def test_unknown_task_can_be_revoked_and_expires(queue, clock):
    """A process that does not know a function still ends tasks that are revoked or have expired."""
    results = [
        queue.enqueue(Task(task_id, "unknown", expires=clock.now() + 10 if task_id == "b" else None))
        for task_id in "abc"
    ]
    drain(queue)
    queue.revoke_by_id("c")
    drain(queue)
    assert [result.state for result in results] == ["queued", "queued", "revoked"]
    drain(queue, until=20)
    assert [result.state for result in results] == ["queued", "expired", "revoked"]


def test_two_versions_share_a_queue(versions):
    """While two versions share a queue, each task runs once, in a version that knows its function."""
    old, new = versions
    ran = {"old": [], "new": []}
    for name, queue in ("old", old), ("new", new):
        queue.post_execute(name)(lambda task, value, error, name=name: ran[name].append((task.name, value)))
    results = []
    for number in range(10):
        for name in "fresh", "plain":
            task = Task(f"{name} {number}", name, retries=1)
            task._call = ((number,), {})
            results.append(new.enqueue(task))
    while old.run_next() is not None or new.run_next() is not None:
        pass
    assert [result.state for result in results] == ["complete"] * 20
    assert {name for name, _ in ran["old"]} == {"plain"}
    assert sorted(value for name, value in ran["new"] if name == "fresh") == list(range(-9, 1))
    assert all(result.task.retries == 1 and result.task.attempt == 1 for result in results)
    assert sum("interrupted" in states(result) for result in results) == 1


def test_immediate_mode_leaves_unknown_functions(make):
    """In immediate mode, too, a task of an unknown function waits until the function is declared."""
    queue = make(immediate=True)
    result = queue.enqueue(Task("a", "late"))
    assert result.state == "queued"
    late = queue.task(name="late")(lambda: "run")
    assert late().get() == "run"
    assert result.get() == "run"


def test_idle_process_waits_while_only_unknown_tasks_are_due(queue):
    """With only tasks of unknown functions due, no claim is due, and a claim changes nothing."""
    queue.enqueue(Task("a", "unknown"))
    drain(queue)
    generation = queue.storage.generation(Channel.WORK)
    assert queue.storage.next_due(queue.engine.unknown.skip_names) is None
    assert queue.run_next() is None
    assert queue.storage.generation(Channel.WORK) == generation
