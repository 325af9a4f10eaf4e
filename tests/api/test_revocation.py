"""Revocation: a revoked task or function does not run, is revoked promptly, and can be restored until then."""

from datetime import UTC, datetime, timedelta

import pytest
from conftest import KINDS, NOW, drain, failure, states
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import patient

from lifecycle import ConfigurationError

UNTIL = {
    "seconds": 50, "timedelta": timedelta(seconds=50), "aware": datetime.fromtimestamp(NOW + 50, UTC),
    "naive": datetime.fromtimestamp(NOW + 50),  # noqa: DTZ006 -- local time, on purpose
}  # fmt: skip


@pytest.fixture
def note(queue, ran):
    @queue.task()
    def note(what):
        ran.append(what)

    return note


WAYS = {
    "revoke": (lambda queue, result, *how: queue.revoke(result, *how), lambda queue, result: queue.restore(result)),
    "task": (
        lambda queue, result, *how: queue.revoke(queue.get(result.id), *how),
        lambda queue, result: queue.restore(queue.get(result.id)),
    ),
    "by id": (
        lambda queue, result, *how: queue.revoke_by_id(result.id, *how),
        lambda queue, result: queue.restore_by_id(result.id),
    ),
    "handle": (lambda queue, result, *how: result.revoke(*how), lambda queue, result: result.restore()),
}


@pytest.mark.parametrize("way", WAYS)
def test_revoked_task_does_not_run_and_others_do(queue, heard, ran, note, way):
    """A revoked task that waits does not run, however it was revoked; its function's other tasks do."""
    revoke, _ = WAYS[way]
    first, second = note(1), note(2)
    assert not queue.is_revoked(first)
    revoke(queue, first)
    for what in (first, first.id, queue.get(first.id)):
        assert queue.is_revoked(what)
    assert not any(queue.is_revoked(what) for what in (second, note))
    assert heard.story(first) == "enqueued"
    drain(queue)
    assert heard.story(first) == "enqueued revoked"
    assert heard.story(second) == "enqueued executing complete"
    assert ran == [2]


@pytest.mark.parametrize("way", WAYS)
def test_restored_task_runs(queue, heard, ran, note, way):
    """A task that is restored before a worker has moved it to `revoked` runs."""
    revoke, restore = WAYS[way]
    result = note(1)
    assert restore(queue, result) is False
    revoke(queue, result)
    assert restore(queue, result) is True
    assert restore(queue, result) is False
    assert not queue.is_revoked(result)
    drain(queue)
    assert heard.story(result) == "enqueued executing complete"


def test_revoked_scheduled_task_goes_before_all_others(queue, heard, clock, note):
    """A scheduled task that is revoked is claimed by the next worker, before all others, not at its ETA."""
    scheduled, urgent = note.schedule((1,), delay=1000), note.schedule((2,), priority=99)
    assert queue.run_next().id == urgent.id
    assert queue.run_next() is None
    other = note.schedule((3,), priority=99)
    scheduled.revoke()
    assert [task.id for task in drain(queue)] == [scheduled.id, other.id]
    assert heard.story(scheduled) == "enqueued scheduled revoked"
    assert clock.now() == NOW


def test_task_revoked_before_its_first_claim_is_never_scheduled(queue, heard, note):
    """A task with an ETA that is revoked before its first claim is never `scheduled`."""
    result = note.schedule((1,), delay=1000)
    result.revoke()
    assert queue.run_next().state == "revoked"
    assert heard.story(result) == "enqueued revoked"


def test_id_can_be_revoked_before_its_task_is_enqueued(queue, heard, ran, note):
    """An id can be revoked before its task is enqueued: the task does not run."""
    task = note.s(1)
    queue.revoke(task)
    assert queue.is_revoked(task)
    result = queue.enqueue(task)
    drain(queue)
    assert heard.story(result) == "enqueued revoked"
    assert ran == []


def test_task_revoked_while_it_runs_is_not_retried(queue, heard):
    """A task that is revoked while it runs does not run again: its retry is revoked, at once."""

    @queue.task(retries=3, retry_delay=1000, context=True)
    def fails(task=None):
        queue.revoke(task)
        raise ValueError

    result = fails()
    drain(queue)
    assert heard.story(result) == "enqueued executing error retrying scheduled revoked"


def test_task_revoked_while_it_runs_can_complete(queue, heard, ran):
    """A task that is revoked while it runs, and succeeds, is complete."""

    @queue.task(retries=3, context=True)
    def works(task=None):
        queue.revoke(task)
        return 5

    result = works()
    drain(queue)
    assert heard.story(result) == "enqueued executing complete"
    assert result.get() == 5


def test_task_in_state_revoked_cannot_be_restored(queue, note):
    """A task in the state `revoked` is still known as revoked, and cannot be restored."""
    result = note(1)
    result.revoke()
    drain(queue)
    assert queue.is_revoked(result.id)
    assert queue.restore(result) is False
    queue.revoke(result)
    assert queue.restore(result) is False
    assert result.state == "revoked"
    assert failure(result)["state"] == "revoked"


@pytest.mark.parametrize("until", UNTIL)
@pytest.mark.parametrize("delay", [None, 49, 50, 51])
def test_task_revoked_until_a_moment_is_stopped_only_before_it(queue, clock, ran, note, until, delay):
    """A task that is revoked until a moment is revoked only if it would run before that moment."""
    result = note.schedule((1,), delay=delay)
    result.revoke(UNTIL[until])
    drain(queue)
    stopped = delay in (None, 49)
    assert result.state == ("revoked" if stopped else "scheduled")
    clock.advance(100)
    drain(queue)
    assert ran == [] if stopped else [1]
    assert states(result) == f"queued {'revoked' if stopped else 'scheduled executing complete'}"


@pytest.mark.parametrize("way", WAYS)
def test_task_can_be_revoked_until_a_moment_in_each_way(queue, clock, note, way):
    """A task can be revoked until a moment in each way of revoking a task."""
    revoke, _ = WAYS[way]
    result = note(1)
    revoke(queue, result, 50, True)
    assert queue.is_revoked(result)
    clock.advance(50)
    assert not queue.is_revoked(result)
    drain(queue)
    assert result.state == "complete"


def test_task_not_claimed_before_its_revocation_ends_runs(queue, clock, note):
    """A task that no worker claims before its revocation ends runs."""
    result = note(1)
    result.revoke(50)
    clock.advance(49.9)
    assert queue.is_revoked(result)
    clock.advance(0.1)
    assert not queue.is_revoked(result)
    drain(queue)
    assert result.state == "complete"


# Functions -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["queue", "function"])
def test_no_task_of_a_revoked_function_runs_until_it_is_restored(queue, heard, ran, note, way):
    """No task of a revoked function runs, waiting or new, until the function is restored."""
    other = queue.task(name="other")(lambda: None)
    before = note(1)
    if way == "queue":
        queue.revoke_all(note)
    else:
        note.revoke()
    assert note.is_revoked()
    assert queue.is_revoked(note)
    assert not queue.is_revoked(other)
    after, free = note(2), other()
    drain(queue)
    assert [heard.story(result) for result in (before, after)] == ["enqueued revoked"] * 2
    assert free.state == "complete"
    assert (queue.restore_all(note) if way == "queue" else note.restore()) is True
    assert (queue.restore_all(note), note.restore()) == (False, False)
    assert not note.is_revoked()
    assert note(3).state == "queued"
    drain(queue)
    assert ran == [3]
    assert before.state == "revoked"


def test_scheduled_task_of_a_revoked_function_is_revoked_at_its_eta(queue, heard, clock, ran, note):
    """A scheduled task of a revoked function is revoked at its ETA, if the function is still revoked then."""
    one, other = note.schedule((1,), delay=10), note.schedule((2,), delay=20)
    note.revoke()
    assert queue.run_next() is None
    assert [result.state for result in (one, other)] == ["scheduled", "scheduled"]
    clock.advance(10)
    assert queue.run_next().id == one.id
    note.restore()
    clock.advance(10)
    drain(queue)
    assert heard.story(one) == "enqueued scheduled revoked"
    assert ran == [2]


@pytest.mark.parametrize("until", UNTIL)
def test_function_revoked_until_a_moment_runs_from_then_on(queue, clock, ran, note, until):
    """A function can be revoked until a moment: its tasks before that moment are revoked, later ones run."""
    note.revoke(UNTIL[until])
    early = note(1)
    drain(queue)
    late = note.schedule((2,), delay=49.5)
    clock.advance(49.9)
    assert note.is_revoked()
    drain(queue)
    clock.advance(0.1)
    assert not note.is_revoked()
    in_time = note(3)
    drain(queue)
    assert [result.state for result in (early, late, in_time)] == ["revoked", "revoked", "complete"]
    assert ran == [3]


@pytest.mark.parametrize("until", [None, 50])
def test_function_revoked_once_stops_one_task(queue, clock, ran, note, until):
    """A function that is revoked once stops one task, or none after its moment."""
    note.revoke(until, revoke_once=True)
    results = [note(n) for n in range(3)]
    drain(queue)
    assert [result.state for result in results] == ["revoked", "complete", "complete"]
    assert not note.is_revoked()
    queue.revoke_all(note, until, True)
    clock.advance(60)
    note(9)
    drain(queue)
    assert ran == [1, 2] if until is None else [1, 2, 9]


def test_once_is_not_used_up_by_expired_or_revoked_tasks(queue, ran, note):
    """A function's single revocation is not used up by a task that is revoked itself, or has expired."""
    note.revoke(revoke_once=True)
    own, expired, stopped, free = note(1), note.schedule((2,), expires=0), note(3), note(4)
    own.revoke()
    drain(queue)
    assert [result.state for result in (own, expired, stopped, free)] == ["revoked", "expired", "revoked", "complete"]
    assert ran == [4]


def test_retry_of_a_revoked_function_is_revoked(queue, heard):
    """A task whose function is revoked while it runs ends its attempt, and its retry is revoked."""

    @queue.task(retries=1)
    def fails():
        fails.revoke()
        raise ValueError

    result = fails()
    drain(queue)
    assert heard.story(result) == "enqueued executing error retrying enqueued revoked"


def test_task_both_expired_and_revoked_is_expired(queue, clock, note):
    """A task that is both expired and revoked ends `expired`."""
    result = note.schedule((1,), expires=5)
    result.revoke()
    clock.advance(5)
    drain(queue)
    assert states(result) == "queued expired"


@pytest.mark.parametrize("until", ["tomorrow", True, float("nan"), float("inf")])
def test_revoke_until_that_is_no_moment_is_refused(queue, note, until):
    """A `revoke_until` that is neither a moment nor a duration is refused, and nothing is revoked."""
    result = note(1)
    for revoke in (note.revoke, result.revoke):
        with pytest.raises(ConfigurationError, match="revoke_until="):
            revoke(until)
    assert not note.is_revoked()
    assert not result.is_revoked()


@patient
@given(
    st.sampled_from(KINDS),
    st.lists(
        st.tuples(st.sampled_from(["revoke", "restore", "run", "call"]), st.booleans(), st.integers(0, 3)), max_size=12
    ),
)
def test_any_order_of_revoke_restore_call_and_run(new, kind, steps):
    """In any order of revoke, restore, call and run a task runs if, and only if, nothing revokes it then."""
    with new(kind) as queue:
        ran, results, tasks, stopped = [], [], set(), False
        note = queue.task(name="note")(ran.append)
        for step, function, n in steps:
            result = results[n % len(results)] if results else None
            if step == "call":
                results.append(note(len(results)))
            elif step == "run":
                waiting = [one for one in results if one.state == "queued"]
                expected = [one for one in waiting if one.id in tasks] + [one for one in waiting if one.id not in tasks]
                task = queue.run_next()
                assert (task and task.id) == (expected[0].id if expected else None)
                if task is not None:
                    assert task.state == ("revoked" if stopped or task.id in tasks else "complete")
                    tasks.discard(task.id)
            elif function:
                stopped = step == "revoke"
                (note.revoke if stopped else note.restore)()
            elif result is not None and result.state == "queued":
                (tasks.add if step == "revoke" else tasks.discard)(result.id)
                (result.revoke if step == "revoke" else result.restore)()
        assert sorted(ran) == [n for n, result in enumerate(results) if result.state == "complete"]
        assert note.is_revoked() is stopped
