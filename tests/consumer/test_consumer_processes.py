"""Consumers as processes on one SQLite file: each scenario of the law, and each way in which a process ends."""

import re
import time
from random import Random
from signal import SIGCONT, SIGINT, SIGKILL, SIGTERM

import psutil
import pytest
from support.processes import (
    DELAY,
    LEASE,
    LONG,
    LONG_AGO,
    NOISE,
    PATIENCE,
    consumer_group,
    freeze,
    is_path,
    settled,
    signals,
    states,
    stop_process,
    until,
    wait_for_log,
)
from support.profiles import sampled

from lifecycle import LIFECYCLE, SIGNAL_ENQUEUED, TaskException

REQUEUED_STATES = "queued executing interrupted queued"


@pytest.fixture
def group(request, tmp_path):
    """Consumers of `programs/chores.py`; tests marked `short_lease` have a short lease."""
    with consumer_group(tmp_path, lease=getattr(request, "param", LONG)) as group:
        yield group


short_lease = pytest.mark.parametrize("group", [LEASE], indirect=True, ids=["short lease"])


# The scenarios -------------------------------------------------------------------------------------------------------


def revoked_before(group):
    group.tasks.add.revoke()
    return group.tasks.add(1, 2)


def revoked_while_it_waits(group):
    result = group.tasks.add.schedule((1, 2), delay=3600)
    group.events.wait_for(id=result.id, signal="scheduled")
    result.revoke()
    return result


def with_its_lock_taken(group):
    with group.queue.lock_task("chores"):
        result = group.tasks.locked()
        settled(group.queue, result)
    return result


SCENARIOS = {
    "a call": (lambda group: group.tasks.add(1, 2), "executing complete"),
    "it is revoked while it waits": (revoked_while_it_waits, "scheduled revoked"),
    "for later": (lambda group: group.tasks.add.schedule((2, 3), delay=DELAY), "scheduled executing complete"),
    "a retry after a delay": (
        lambda group: group.tasks.flaky(),
        "executing error retrying scheduled executing complete",
    ),
    "a retry without a delay": (
        lambda group: group.tasks.hasty(),
        "executing error retrying enqueued executing complete",
    ),
    "the task asks for a retry": (
        lambda group: group.tasks.polite(),
        "executing retrying enqueued executing complete",
    ),
    "no retry is left": (lambda group: group.tasks.hopeless(), "executing error"),
    "its function is revoked": (revoked_before, "revoked"),
    "a hook cancels it": (lambda group: group.tasks.unwanted(), "executing canceled"),
    "the lock is taken": (with_its_lock_taken, "executing locked"),
    "it runs too long": (lambda group: group.tasks.endless(), "executing timeout"),
    "past its expiry": (lambda group: group.tasks.add.schedule((1, 2), expires=LONG_AGO), "expired"),
}


@pytest.mark.parametrize("name", sampled(SCENARIOS, default=4))
def test_consumer_sends_the_signals_of_each_scenario(group, name):
    """A consumer sends the signals of the law, in order and no others, and the history agrees."""
    act, expected = SCENARIOS[name]
    consumer = group.start_consumer()
    result = act(group)
    settled(group.queue, result)
    group.tasks.add.restore()
    settled(group.queue, group.tasks.add(0, 0))  # any further step of the first task would come before this one
    assert stop_process(consumer) == 0
    group.events.close()
    assert group.events.signals(result) == expected
    assert signals(result) == expected


def test_scheduled_task_and_delayed_retry_do_not_start_early(group):
    """Neither a scheduled task nor a retry with a delay starts before its time."""
    called = time.time()
    group.start_consumer()
    later, flaky = group.tasks.add.schedule((2, 3), delay=DELAY), group.tasks.flaky()
    assert settled(group.queue, later, flaky) == ["complete", "complete"]
    at = [record.at for record in later.history()]
    assert at[2] >= called + DELAY
    *_, scheduled, executing, _ = flaky.history()
    assert (scheduled.state, executing.state) == ("scheduled", "executing")
    assert executing.at >= scheduled.at + DELAY


def test_producer_sends_enqueued_and_consumer_all_other_signals(group):
    """`enqueued` is sent by the producer, all other signals by the consumer."""
    sent = []
    group.queue.signal()(lambda signal, task, exc=None: sent.append((signal, task.id)))
    group.start_consumer()
    result = group.tasks.add(1, 2)
    settled(group.queue, result)
    assert sent == [(SIGNAL_ENQUEUED, result.id)]


def test_handler_in_a_consumer_can_read_result_and_error(group):
    """A handler of `complete` can read the result, a handler of `error` the error."""
    group.start_consumer()
    add, hopeless = group.tasks.add(1, 2), group.tasks.hopeless()
    settled(group.queue, add, hopeless)
    assert group.events.wait_for(id=add.id, signal="complete")["value"] == 3
    event = group.events.wait_for(id=hopeless.id, signal="error")
    assert event["error"] == event["exc"] == "ValueError('never')"


# kill -9 -------------------------------------------------------------------------------------------------------------


@short_lease
def test_task_of_killed_consumer_runs_on_another_one(group):
    """A task whose consumer is killed runs on another consumer, within its lease and a second at the latest."""
    first, second = group.start_consumer(), group.start_consumer()
    result = group.tasks.linger()
    dead = group.consumer_with_pid(group.events.wait_for(id=result.id, note="begun")["pid"])
    (alive,) = {first, second} - {dead}
    killed = time.time()
    stop_process(dead, SIGKILL)
    assert settled(group.queue, result) == ["complete"]
    assert states(result) == f"{REQUEUED_STATES} executing complete"
    _, started, _, _, again, _ = result.history()
    assert again.at <= killed + LEASE + 1 + NOISE
    assert (started.attempt, again.attempt) == (1, 2)
    assert started.worker != again.worker
    assert result.get() == 2
    assert stop_process(alive) == 0
    group.events.close()
    assert group.events.signals(result, pid=dead.pid) == "executing"
    assert group.events.signals(result, pid=alive.pid) == "interrupted enqueued executing complete"


@short_lease
def test_tasks_of_the_only_consumer_wait_for_the_next_one(group):
    """The tasks of a killed consumer wait for the next one, and lose no retry."""
    group.start_consumer("-w", "2")
    running = [group.tasks.linger(), group.tasks.linger()]
    waiting = group.tasks.add(1, 2)
    for result in running:
        group.events.wait_for(id=result.id, note="begun")
    stop_process(group.consumers[0], SIGKILL)
    assert [states(result) for result in running] == ["queued executing"] * 2
    group.start_consumer()
    assert settled(group.queue, *running, waiting) == ["complete"] * 3
    assert [states(result) for result in running] == [f"{REQUEUED_STATES} executing complete"] * 2
    assert [result.task.interruptions for result in running] == [1, 1]


@short_lease
def test_locks_of_killed_consumer_are_free_after_the_lease(group):
    """The locks of a killed attempt are free once its lease has lapsed."""
    group.start_consumer()
    result = group.tasks.hoard()
    group.events.wait_for(id=result.id, note="begun")
    assert group.queue.is_locked("hoard")
    stop_process(group.consumers[0], SIGKILL)
    assert group.queue.is_locked("hoard")
    group.start_consumer()
    assert settled(group.queue, result) == ["complete"]
    assert result.get() is True  # the second attempt got the lock


@pytest.mark.parametrize("group", [2 * LEASE], indirect=True)
def test_task_can_run_longer_than_its_lease(group):
    """A task can run longer than its lease: no other consumer recovers it while its own is alive."""
    group.start_consumer()
    group.start_consumer()
    result = group.tasks.linger()
    begun = group.events.wait_for(id=result.id, note="begun")
    *_, started = result.history()
    until(lambda: time.time() > started.at + 2.5 * LEASE, "the end of its first lease")
    group.release_tasks()
    assert settled(group.queue, result) == ["complete"]
    assert states(result) == "queued executing complete"
    assert group.events.wait_for(id=result.id, signal="complete")["pid"] == begun["pid"]


# SIGSTOP -------------------------------------------------------------------------------------------------------------


@short_lease
def test_frozen_consumer_sends_nothing_and_its_outcome_is_refused(group):
    """A consumer that was frozen past its lease sends no more signals of its task, and its outcome is refused."""
    first, second = group.start_consumer(), group.start_consumer()
    result = group.tasks.linger()
    frozen = group.consumer_with_pid(group.events.wait_for(id=result.id, note="begun")["pid"])
    (other,) = {first, second} - {frozen}
    freeze(frozen, group.file)
    assert settled(group.queue, result) == ["complete"]
    history = result.history()
    group.release_tasks()
    frozen.send_signal(SIGCONT)
    group.events.wait_for(id=result.id, note="left", pid=frozen.pid)
    assert stop_process(frozen) == 0
    assert stop_process(other) == 0
    group.events.close()
    assert group.events.signals(result, pid=frozen.pid) == "executing"
    assert group.events.signals(result, pid=other.pid) == "interrupted enqueued executing complete"
    assert result.history() == history
    assert result.get() == 2
    assert f"{result.id}" in frozen.log.read_text()
    assert "too late" in frozen.log.read_text()


@short_lease
def test_frozen_consumer_runs_tasks_again_after_it_wakes_up(group):
    """A consumer that wakes up runs other tasks, and those again that were recovered meanwhile."""
    consumer = group.start_consumer()
    result = group.tasks.linger()
    group.events.wait_for(id=result.id, note="begun")
    freeze(consumer, group.file)
    until(lambda: time.time() > group.queue.get(result.id).lease, "the end of the lease")
    group.queue.engine.recover()
    assert result.state == "queued"
    consumer.send_signal(SIGCONT)
    group.release_tasks()
    assert settled(group.queue, result, group.tasks.add(1, 2)) == ["complete", "complete"]
    assert states(result) == f"{REQUEUED_STATES} executing complete"
    assert result.get() == 2


# SIGTERM, SIGINT -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [SIGINT, SIGTERM])
def test_idle_consumer_ends_cleanly_at_a_signal(group, how):
    """An idle consumer ends at a signal with exit code 0, all shutdown hooks called, and no warning in its log."""
    consumer = group.start_consumer("-w", "3")
    group.events.wait_for(3, note="up")
    assert stop_process(consumer, how) == 0
    group.events.close()
    assert len(group.events.received(note="down")) == 3
    log = consumer.log.read_text()
    assert "WARNING" not in log
    assert "ERROR" not in log


def test_sigint_finishes_running_tasks_and_claims_no_more(group):
    """SIGINT lets running tasks finish, and no more task is claimed."""
    consumer = group.start_consumer()
    running, waiting = group.tasks.linger(), group.tasks.add(1, 2)
    group.events.wait_for(id=running.id, note="begun")
    consumer.send_signal(SIGINT)
    wait_for_log(consumer, "stopping")
    group.release_tasks()
    assert consumer.wait(PATIENCE) == 0
    assert states(running) == "queued executing complete"
    assert states(waiting) == "queued"


@pytest.mark.parametrize("how", [(SIGTERM, SIGTERM), (SIGINT, SIGTERM), (SIGINT, SIGINT, SIGINT)])
def test_repeated_signals_end_the_consumer_at_once(group, how):
    """Repeated signals end a consumer at once, in spite of a task that cannot be interrupted and a long grace."""
    consumer = group.start_consumer("--grace", "3600")
    result = group.tasks.stubborn()
    group.events.wait_for(id=result.id, note="begun")
    for count, number in enumerate(how, 1):
        consumer.send_signal(number)
        if count < len(how):
            wait_for_log(consumer, "stopping", count)
    assert consumer.wait(PATIENCE) == 0
    group.events.close()
    assert states(result) == REQUEUED_STATES
    assert group.events.signals(result) == "executing interrupted enqueued"


@pytest.mark.parametrize("chore", ["stubborn", "asleep"])
def test_task_that_cannot_be_interrupted_is_requeued_after_the_grace(group, chore):
    """A task that cannot be interrupted is requeued after the grace, and the process ends."""
    consumer = group.start_consumer("--grace", "0.3")
    result = getattr(group.tasks, chore)()
    group.events.wait_for(id=result.id, note="begun")
    assert stop_process(consumer, SIGTERM) == 0
    assert states(result) == REQUEUED_STATES
    group.start_consumer()
    assert settled(group.queue, result) == ["complete"]
    assert result.get() == 2
    group.events.wait_for(id=result.id, signal="complete")
    assert group.events.signals(result) == "executing interrupted enqueued executing complete"


def test_consumer_terminated_during_a_handler_ends(group):
    """A consumer that is terminated while a handler runs ends; committed states stay."""
    consumer = group.start_consumer("--grace", "0.3", "-w", "2")
    celebrated, linger = group.tasks.celebrated(), group.tasks.linger()
    group.events.wait_for(id=celebrated.id, note="celebrating")
    group.events.wait_for(id=linger.id, note="begun")
    assert stop_process(consumer, SIGTERM) == 0
    assert states(celebrated) == "queued executing complete"
    assert states(linger).endswith("executing interrupted queued")  # once more, if it was claimed along with the other


def test_consumer_with_threads_has_no_child_process(group):
    """A consumer with worker threads has no child process."""
    consumer = group.start_consumer("-w", "4")
    group.events.wait_for(4, note="up")
    assert psutil.Process(consumer.pid).children() == []


# Storms --------------------------------------------------------------------------------------------------------------


def is_subsequence(some, all_):
    """Return whether all of `some` are in `all_`, in the same order."""
    rest = iter(all_)
    return all(one in rest for one in some)


@pytest.mark.parametrize("seed", sampled([1, 2, 3]))
def test_no_task_is_lost_or_ends_twice_while_consumers_are_killed(tmp_path, seed):
    """While consumers are killed no task is lost, none ends twice, and each history is a path of the table."""
    random = Random(seed)
    with consumer_group(tmp_path, lease=1.0, max_interruptions=1000) as group:
        ends = {group.tasks.steady: "complete", group.tasks.shaky: "complete", group.tasks.doomed: "error"}
        for _ in range(2):
            group.start_consumer("-w", "2", "-q")
        calls = [(random.choice([*ends]), random.uniform(0.0, 0.03)) for _ in range(300)]
        results = [(function, function(number, seconds)) for number, (function, seconds) in enumerate(calls)]
        for kill in range(10):
            event = len(group.events.all)
            group.tasks.quick.map(range(100 * kill, 100 * kill + 100))
            some = random.randrange(200)  # each of those tasks sends two signals
            until(lambda event=event, some=some: len(group.events.all) >= event + some, "some signals")
            victim = group.consumers.pop(random.randrange(2))
            stop_process(victim, SIGKILL)
            group.start_consumer("-w", "2", "-q", wait=random.random() < 0.5)
        quick = [group.queue.handle(task.id) for task in group.queue.tasks(limit=2000) if task.name == "chores.quick"]
        every = [result for _, result in results] + quick
        settled(group.queue, *every, patience=2 * PATIENCE)
        for consumer in group.consumers:
            group.events.wait_for(note="up", pid=consumer.pid)  # a signal would end a consumer that is still starting
            assert stop_process(consumer) == 0
        group.events.close()

        assert len({result.id for result in every}) == 1300
        assert {name: n for name, n in group.queue.counts().items() if n} == {
            "complete": 1000 + sum(ends[function] == "complete" for function, _ in results),
            "error": sum(ends[function] == "error" for function, _ in results),
        }
        interrupted = 0
        for number, (function, result) in enumerate([*results, *((group.tasks.quick, result) for result in quick)]):
            history = [record.state for record in result.history()]
            task = result.task
            assert is_path(history), history
            assert history[-1] == ends.get(function, "complete")
            assert history.count("executing") == task.attempt
            assert history.count("interrupted") == task.interruptions
            interrupted += task.interruptions
            # An interruption costs no retry, and a retry no more than one failure.
            failures = {group.tasks.shaky: 1, group.tasks.doomed: 3}.get(function, 0)
            assert history.count("error") == failures
            assert history.count("retrying") == min(failures, 2)
            event = group.events.signals(result).split()
            assert is_subsequence(event, [LIFECYCLE.state(state).signal for state in history[1:]]), (event, history)
            if function is group.tasks.doomed:
                with pytest.raises(TaskException, match="never"):
                    result.get()
            elif function is not group.tasks.quick:
                assert result.get() == number
        assert "locked" not in group.logs()
        assert not re.search(r"ERROR +lifecycle\.(?!task:)", group.logs())
        finished = (tmp_path / "finished").read_text().split()
        assert len(set(finished)) == group.queue.counts()["complete"]
        twice = len(finished) - len(set(finished))
        print(f"seed {seed}: 10 kills, {interrupted} attempts interrupted, {twice} functions finished twice")  # noqa: T201


def test_sigterm_interrupts_and_requeues_running_tasks(group):
    """SIGTERM interrupts running tasks: they clean up, are requeued without their locks, and run on another consumer."""
    consumer = group.start_consumer("-w", "2", "--grace", str(PATIENCE))
    linger, hoard = group.tasks.linger(), group.tasks.hoard()
    for result in (linger, hoard):
        group.events.wait_for(id=result.id, note="begun")
    assert stop_process(consumer, SIGTERM) == 0
    assert group.events.received(id=linger.id, note="left")
    assert [states(result) for result in (linger, hoard)] == [REQUEUED_STATES] * 2
    assert not group.queue.is_locked("hoard")
    for result in (linger, hoard):
        assert group.events.signals(result) == "executing interrupted enqueued"
    other = group.start_consumer()
    assert settled(group.queue, linger, hoard) == ["complete"] * 2
    assert hoard.get() is True
    assert stop_process(other) == 0
    group.events.close()
    for result in (linger, hoard):
        assert group.events.signals(result, pid=other.pid) == "executing complete"
    for note in ("up", "down"):
        assert len(group.events.received(note=note, pid=consumer.pid)) == 2


def test_second_sigint_interrupts_running_tasks(group):
    """A second SIGINT interrupts the tasks that the first one lets finish."""
    consumer = group.start_consumer()
    result = group.tasks.linger()
    group.events.wait_for(id=result.id, note="begun")
    consumer.send_signal(SIGINT)
    wait_for_log(consumer, "stopping")
    assert stop_process(consumer) == 0
    assert states(result) == REQUEUED_STATES
    assert group.events.signals(result) == "executing interrupted enqueued"
