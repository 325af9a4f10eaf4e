"""Retries, expiry, and the limit of interruptions."""

from datetime import UTC, datetime, timedelta

import pytest
from conftest import KINDS, NOW, Heard, drain, states
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import patient

from lifecycle import ConfigurationError, RetryTask, TaskInterrupted

# Retries -------------------------------------------------------------------------------------------------------------


@patient
@given(
    st.sampled_from(KINDS),
    st.integers(0, 4),
    st.integers(0, 20),
    st.sampled_from([0, 1, 2, 3]),
    st.sampled_from([5, 30, 1000]),
)
def test_retry_delays_grow_by_backoff_up_to_their_maximum(new, kind, retries, delay, backoff, longest):
    """Each retry waits its delay, multiplied by `retry_backoff` for each retry before, up to `retry_max_delay`."""
    with new(kind) as queue:
        clock = queue.engine.clock

        @queue.task(retries=retries, retry_delay=delay, retry_backoff=backoff, retry_max_delay=longest)
        def fails():
            raise ValueError

        result = fails()
        waits = []
        while queue.run_next().state != "error":
            task = queue.get(result.id)
            waits.append((task.eta or clock.now()) - clock.now())
            assert task.state == ("scheduled" if waits[-1] else "queued")
            clock.advance(waits[-1])
        assert waits == [min(delay * max(backoff, 1) ** n, longest) for n in range(retries)]
        assert queue.get(result.id).attempt == retries + 1
        assert drain(queue) == []


def test_jitter_lengthens_the_retry_delay_at_random(queue, clock):
    """A retry waits up to its jitter's share longer than its delay, at random, and never shorter."""

    @queue.task(retries=1, retry_delay=100, retry_jitter=0.5)
    def fails():
        raise ValueError

    waits = set()
    for _ in range(30):
        result = fails()
        queue.run_next()
        waits.add(queue.get(result.id).eta - clock.now())
    assert all(100 <= wait <= 150 for wait in waits)
    assert len(waits) > 20
    assert max(waits) - min(waits) > 10


def test_retry_task_retries_at_its_moment_and_costs_no_retry(queue, clock):
    """`RetryTask` retries at its ETA, after its delay, or as the policy says, and uses up no retry."""
    wishes = iter([
        RetryTask(delay=7), RetryTask("later", delay=timedelta(seconds=8)),
        RetryTask(eta=datetime.fromtimestamp(NOW + 30, UTC)), RetryTask(), RetryTask(delay=0),
    ])  # fmt: skip

    @queue.task(retry_delay=3)
    def again():
        for wish in wishes:
            raise wish
        return "done"

    result = again()
    for eta in (NOW + 7, NOW + 15, NOW + 30, NOW + 33):
        assert queue.run_next().state == "scheduled"
        assert queue.get(result.id).eta == eta
        clock.set(eta)
    assert [task.state for task in drain(queue)] == ["queued", "complete"]
    assert states(result).count("retrying") == 5
    assert "error" not in states(result)


# Expiry --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("expires", [60, timedelta(minutes=1), datetime.fromtimestamp(NOW + 60, UTC)], ids=str)
@pytest.mark.parametrize("way", ["declared", "called"])
def test_task_not_started_before_its_expiry_expires(queue, clock, way, expires):
    """A task that is not started before its expiry, given in seconds from the call or as a moment, ends `expired`."""

    @queue.task(expires=expires if way == "declared" else None)
    def add(a): ...

    options = {} if way == "declared" else {"expires": expires}
    in_time, too_late = add.schedule((1,), **options), add.schedule((2,), **options)
    clock.advance(59.5)
    assert queue.run_next().id == in_time.id
    clock.advance(0.5)
    assert queue.run_next().state == "expired"
    assert (in_time.state, too_late.state) == ("complete", "expired")
    if not isinstance(expires, datetime):
        late = add.schedule((3,), **options)
        clock.advance(59.5)
        assert queue.run_next().state == "complete"
        assert late.state == "complete"


@pytest.mark.parametrize("way", ["declared", "called", "made"])
def test_expiry_in_seconds_counts_from_when_the_task_is_due(queue, clock, way):
    """An expiry in seconds counts from the ETA of a scheduled task, however the ETA was given."""

    @queue.task(expires=10 if way != "called" else None)
    def add(): ...

    def scheduled():
        if way == "called":
            return add.schedule(delay=60, expires=10)
        if way == "declared":
            return add.schedule(delay=60)
        task = add.s()
        task.eta = clock.now() + 60
        return queue.enqueue(task)

    in_time, late = scheduled(), scheduled()
    assert (in_time.task.expires, queue.run_next()) == (NOW + 70, None)
    clock.advance(69.5)
    assert queue.run_next().id == in_time.id
    clock.advance(0.5)
    assert queue.run_next().state == "expired"
    assert (in_time.state, states(late)) == ("complete", "queued scheduled expired")


def test_expiry_of_a_task_made_before_counts_from_its_enqueuing(queue, clock):
    """An expiry in seconds counts from the call that enqueues the task, not from the moment when it was made."""
    task = queue.task(name="add", expires=10)(lambda: None).s()
    clock.advance(60)
    assert queue.enqueue(task).task.expires == NOW + 70


def test_task_that_waits_for_a_retry_past_a_fixed_expiry_expires(queue, clock):
    """A task that waits for a retry past an expiry that is a fixed moment ends `expired`."""

    @queue.task(retries=1, retry_delay=10, expires=datetime.fromtimestamp(NOW + 5, UTC))
    def fails():
        raise ValueError("first")

    result = fails()
    queue.run_next()
    clock.advance(5)
    assert queue.run_next().state == "expired"
    assert states(result) == "queued executing error retrying scheduled expired"


@pytest.mark.parametrize("way", ["delay", "at once", "interrupted", "operator"])
def test_expiry_in_seconds_counts_anew_for_each_later_attempt(queue, clock, way):
    """An expiry in seconds counts again when a retry is due, or when the task is requeued; after it the task expires."""

    @queue.task(retries=2 if way != "operator" else 0, retry_delay=60 if way == "delay" else 0, expires=10)
    def fails():
        raise TaskInterrupted if way == "interrupted" else ValueError

    result = fails()
    for last in (False, True):
        queue.run_next()
        if way == "operator" and not last:
            queue.retry(result.id)
        if last:
            break
        clock.advance(69.5 if way == "delay" else 9.5)
    if way == "operator":
        queue.retry(result.id)
    assert result.task.attempt == 2
    clock.advance({"delay": 70, "interrupted": 12}.get(way, 10))  # a second interruption is followed by a pause of 2 s
    assert queue.run_next().state == "expired"


@pytest.mark.parametrize("expires", [NOW + 59, NOW + 60], ids=["before", "at"])
@pytest.mark.parametrize("way", ["declared", "called", "made"])
def test_task_that_could_never_run_is_refused(queue, way, expires):
    """A task whose expiry is a moment not later than its ETA is refused: it could never run."""
    expires = datetime.fromtimestamp(expires, UTC)
    add = queue.task(name="add", expires=expires if way == "declared" else None)(lambda: None)
    task = add.s()
    task.eta, task.expires = NOW + 60, expires
    calls = {
        "declared": lambda: add.schedule(delay=60),
        "called": lambda: add.schedule(delay=60, expires=expires),
        "made": lambda: queue.enqueue(task),
    }
    with pytest.raises(ConfigurationError, match=r"expires=.* must be later than eta=.*never run"):
        calls[way]()
    assert sum(queue.counts().values()) == 0
    with pytest.raises(ConfigurationError, match="expires=0: must be greater than 0"):
        queue.task(expires=0)


# Interruptions -------------------------------------------------------------------------------------------------------


def test_task_interrupted_too_often_rests_until_an_operator_retries_it(make):
    """A task with too many interruptions rests `interrupted`; an operator's retry runs it again, counting from zero."""
    queue = make(max_interruptions=2)
    heard = Heard(queue)
    harmless = False

    @queue.task(retries=5)
    def poison():
        if not harmless:
            raise TaskInterrupted

    result = poison()
    assert [task.state for task in drain(queue, until=3600)] == ["queued", "queued", "interrupted"]
    again = " executing interrupted enqueued"
    assert heard.story(result) == f"enqueued{again}{again} scheduled executing interrupted"
    assert queue.get(result.id).interruptions == 3
    assert queue.get(result.id).retries == 5
    assert queue.retry(result.id).id == result.id
    assert heard.of(result)[-2:] == ["retrying", "enqueued"]
    assert queue.get(result.id).interruptions == 0
    assert queue.run_next().state == "queued"
    harmless = True
    assert queue.run_next().state == "complete"
