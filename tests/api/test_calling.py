"""Calls of task functions: at once, later, many in one batch; their arguments and ids."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from conftest import KINDS, NOW, Heard, drain, states
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import patient

from lifecycle import ConfigurationError, DuplicateTask, UnknownTask, Unserializable


def test_changes_of_a_task_before_it_is_enqueued_count(queue, heard, add):
    """`s` makes a task that is in no store yet; changes of the task before it is enqueued count."""
    task = add.s(1, b=2)
    assert (task.state, task.args, task.kwargs, len(heard)) == (None, (1,), {"b": 2}, 0)
    with pytest.raises(UnknownTask, match=task.id):
        queue.get(task.id)
    task.priority, task.retries = 7, 3
    result = queue.enqueue(task)
    assert (result.id, task.state) == (task.id, "queued")
    stored = queue.get(task.id)
    assert (stored.priority, stored.retries, stored.args, stored.kwargs) == (7, 3, (1,), {"b": 2})
    queue.run_next()
    assert result.get() == 3


ETAS = {
    "aware": datetime.fromtimestamp(NOW + 100, UTC),
    "naive": datetime.fromtimestamp(NOW + 100),  # noqa: DTZ006 -- local time, on purpose
    "another zone": datetime.fromtimestamp(NOW + 100, UTC).astimezone(datetime.now().astimezone().tzinfo),
}


@pytest.mark.parametrize(
    "when",
    [*({"eta": eta} for eta in ETAS.values()), {"delay": 100}, {"delay": 100.0}, {"delay": timedelta(seconds=100)}],
    ids=str,
)
def test_task_runs_at_its_eta_or_after_its_delay(queue, clock, add, when):
    """A task runs at its ETA, an aware or a local datetime, or after its delay, seconds or a timedelta."""
    result = add.schedule((1, 2), **when)
    assert queue.get(result.id).eta == NOW + 100
    assert queue.run_next() is None
    clock.advance(99.5)
    assert queue.run_next() is None
    clock.advance(0.5)
    assert queue.run_next().id == result.id
    assert queue.get(result.id).eta is None


@pytest.mark.parametrize("when", [100, 100.0, timedelta(seconds=100), *ETAS.values()], ids=str)
def test_call_without_arguments_can_be_scheduled_by_its_time_alone(queue, when):
    """A call without arguments can be scheduled by its time alone, as users of Huey do."""
    result = queue.task(name="nothing")(lambda: None).schedule(when)
    assert queue.get(result.id).eta == NOW + 100
    assert queue.get(result.id).args == ()


@pytest.mark.parametrize("field", ["eta", "expires"])
@pytest.mark.parametrize("moment", [*ETAS.values(), NOW + 100], ids=str)
def test_moments_of_a_task_can_be_set_as_datetimes(queue, add, field, moment):
    """ETA and expiry of a task can be set as datetimes before it is enqueued."""
    task = add.s(1)
    setattr(task, field, moment)
    assert getattr(queue.get(queue.enqueue(task).id), field) == NOW + 100


def test_task_with_a_passed_eta_is_due_at_once(queue, add):
    """A task whose ETA has passed is due at once, and never `scheduled`."""
    result = add.schedule((1, 2), eta=datetime.fromtimestamp(NOW - 1, UTC))
    queue.run_next()
    assert states(result) == "queued executing complete"


def test_map_enqueues_one_call_for_each_item(queue, heard, add):
    """`map` enqueues a call for each item, in order: a tuple is all arguments, any other item the only one."""
    results = add.map(iter([(1, 2), 3, (4,), "56"]))
    assert [signal for signal, *_ in heard] == ["enqueued"] * 4
    assert [queue.get(result.id).args for result in results] == [(1, 2), (3,), (4,), ("56",)]
    assert add.map([]) == []


@patient
@given(st.sampled_from(KINDS), st.integers(0, 4), st.sampled_from(["duplicate", "argument", "priority"]))
def test_batch_is_enqueued_completely_or_not_at_all(new, kind, place, flaw):
    """A batch of tasks is enqueued completely, in its order, or not at all, and then no signal is sent."""
    with new(kind) as queue:
        heard = Heard(queue)

        @queue.task()
        def add(a, b): ...

        tasks = [add.s(n, n) for n in range(5)]
        if flaw == "duplicate":
            tasks[place].id = add(0, 0).id
        elif flaw == "argument":
            tasks[place] = add.s(1, object())
        else:
            tasks[place].priority = 2**31
        count = len(heard)
        with pytest.raises((DuplicateTask, Unserializable, ConfigurationError)):
            queue.enqueue_many(tasks)
        assert len(heard) == count
        assert sum(queue.counts().values()) == count
        good = [task for n, task in enumerate(tasks) if n != place]
        assert all(task.state is None for task in good)
        results = queue.enqueue_many(iter(good))
        assert [result.id for result in results] == [task.id for task in good]
        assert heard.states[count:] == [(task.id, "queued") for task in good]
        assert [task.id for task in drain(queue)][count:] == [task.id for task in good]


def test_duplicate_id_is_refused_and_the_first_task_stays(queue, heard, add):
    """A second task of one id is refused by the id, and the first task stays as it is."""
    result = add.schedule((1, 2), id="order-7")
    assert result.id == "order-7"
    with pytest.raises(DuplicateTask, match="order-7") as caught:
        add.schedule((3, 4), id="order-7")
    assert caught.value.task_id == "order-7"
    one, other = add.s(5), add.s(6)
    other.id = one.id
    with pytest.raises(DuplicateTask, match=one.id):
        queue.enqueue_many([one, other])
    assert heard.story(result) == "enqueued"
    assert [task.id for task in drain(queue)] == ["order-7"]
    assert result.get() == 3
    with pytest.raises(DuplicateTask):
        add.schedule((3, 4), id="order-7")


def test_each_call_has_a_new_id(queue, add):
    """Each call has a new id of 32 hexadecimal digits."""
    ids = [add(1).id for _ in range(100)]
    assert len(set(ids)) == 100
    assert all(len(task_id) == 32 and int(task_id, 16) for task_id in ids)


def test_call_local_calls_the_plain_function(queue, heard):
    """`call_local` calls the plain function at once: no task, no signal, and exceptions are raised."""

    @queue.task(retries=3)
    def divide(a, b):
        return a / b

    @queue.task()
    async def halve(a):
        return a / 2

    assert divide.call_local(6, b=3) == 2
    assert asyncio.run(halve.call_local(6)) == 3
    with pytest.raises(ZeroDivisionError):
        divide.call_local(1, 0)
    assert heard == []
    assert not any(queue.counts().values())


SIGNATURES = {
    "two": (lambda a, b: None, [((), {}), ((1,), {}), ((1, 2, 3), {}), ((1,), {"c": 2}), ((1, 2), {"a": 1})]),
    "default": (lambda a, b=0: None, [((), {}), ((1, 2, 3), {}), ((1,), {"a": 1})]),
    "keyword": (lambda a, *, b: None, [((1,), {}), ((1, 2), {}), ((), {"b": 1})]),
    "any": (lambda *a, **b: None, []),
    "positional": (lambda a, /: None, [((), {"a": 1}), ((), {})]),
}
FITTING = {
    "two": [((1, 2), {}), ((1,), {"b": 2}), ((), {"a": 1, "b": 2})],
    "default": [((1,), {}), ((1, 2), {}), ((), {"a": 1})],
    "keyword": [((1,), {"b": 2})],
    "any": [((), {}), ((1, 2, 3), {"x": 1})],
    "positional": [((1,), {})],
}


@pytest.mark.parametrize("signature", SIGNATURES)
@pytest.mark.parametrize("way", ["call", "s", "schedule"])
def test_arguments_that_do_not_fit_the_signature_are_refused(queue, heard, signature, way):
    """Arguments that do not fit the signature raise TypeError at the call, and make no task; fitting ones run."""
    function, bad = SIGNATURES[signature]
    task = queue.task(name="task")(function)

    def call(args, kwargs):
        if way == "s":
            return queue.enqueue(task.s(*args, **kwargs))
        return task(*args, **kwargs) if way == "call" else task.schedule(args, kwargs)

    for args, kwargs in bad:
        with pytest.raises(TypeError, match=r"^task\(\): "):
            call(args, kwargs)
    assert heard == []
    for args, kwargs in FITTING[signature]:
        call(args, kwargs)
        assert queue.run_next().state == "complete"
