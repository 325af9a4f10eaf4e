"""Consumers as processes on one SQLite file: each scenario of the law, and whatever ends a process."""

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
    end,
    freeze,
    is_path,
    opened,
    said,
    settled,
    signals,
    states,
    until,
)
from support.profiles import sampled

from lifecycle import LIFECYCLE, SIGNAL_ENQUEUED, TaskException

PUT_BACK = "queued executing interrupted queued"


@pytest.fixture
def works(request, tmp_path):
    """Consumers of `programs/chores.py`; their lease is short in the tests marked so."""
    with opened(tmp_path, lease=getattr(request, "param", LONG)) as works:
        yield works


mortal = pytest.mark.parametrize("works", [LEASE], indirect=True, ids=["short lease"])


# The scenarios -------------------------------------------------------------------------------------------------------


def revoked_before(works):
    works.tasks.add.revoke()
    return works.tasks.add(1, 2)


def revoked_while_it_waits(works):
    result = works.tasks.add.schedule((1, 2), delay=3600)
    works.wire.wait_for(id=result.id, signal="scheduled")
    result.revoke()
    return result


def kept_out(works):
    with works.queue.lock_task("chores"):
        result = works.tasks.locked()
        settled(works.queue, result)
    return result


SCENARIOS = {
    "a call": (lambda works: works.tasks.add(1, 2), "executing complete"),
    "it is revoked while it waits": (revoked_while_it_waits, "scheduled revoked"),
    "for later": (lambda works: works.tasks.add.schedule((2, 3), delay=DELAY), "scheduled executing complete"),
    "a retry after a delay": (
        lambda works: works.tasks.flaky(),
        "executing error retrying scheduled executing complete",
    ),
    "a retry without a delay": (
        lambda works: works.tasks.hasty(),
        "executing error retrying enqueued executing complete",
    ),
    "the task asks for a retry": (
        lambda works: works.tasks.polite(),
        "executing retrying enqueued executing complete",
    ),
    "no retry is left": (lambda works: works.tasks.hopeless(), "executing error"),
    "its function is revoked": (revoked_before, "revoked"),
    "a hook cancels it": (lambda works: works.tasks.unwanted(), "executing canceled"),
    "the lock is taken": (kept_out, "executing locked"),
    "it runs too long": (lambda works: works.tasks.endless(), "executing timeout"),
    "past its expiry": (lambda works: works.tasks.add.schedule((1, 2), expires=LONG_AGO), "expired"),
}


@pytest.mark.parametrize("name", sampled(SCENARIOS, default=4))
def test_scenarios(works, name):
    """A consumer sends the signals that the law promises, in that order and no other, and the history agrees."""
    act, promised = SCENARIOS[name]
    consumer = works.hire()
    result = act(works)
    settled(works.queue, result)
    works.tasks.add.restore()
    settled(works.queue, works.tasks.add(0, 0))  # whatever else it would have done with the task comes before this one
    assert end(consumer) == 0
    works.wire.hang_up()
    assert works.wire.signals(result) == promised
    assert signals(result) == promised


def test_delays(works):
    """Neither a task for later nor a retry with a delay is started before its time."""
    called = time.time()
    works.hire()
    later, flaky = works.tasks.add.schedule((2, 3), delay=DELAY), works.tasks.flaky()
    assert settled(works.queue, later, flaky) == ["complete", "complete"]
    at = [record.at for record in later.history()]
    assert at[2] >= called + DELAY
    *_, scheduled, executing, _ = flaky.history()
    assert (scheduled.state, executing.state) == ("scheduled", "executing")
    assert executing.at >= scheduled.at + DELAY


def test_producer_and_consumer_signals(works):
    """`enqueued` is sent where a task is enqueued, and all else where it runs."""
    sent = []
    works.queue.signal()(lambda signal, task: sent.append((signal, task.id)))
    works.hire()
    result = works.tasks.add(1, 2)
    settled(works.queue, result)
    assert sent == [(SIGNAL_ENQUEUED, result.id)]


def test_a_handler_reads_the_result(works):
    """The result can be read in the handler of `complete`, and the error in that of `error`."""
    works.hire()
    add, hopeless = works.tasks.add(1, 2), works.tasks.hopeless()
    settled(works.queue, add, hopeless)
    assert works.wire.wait_for(id=add.id, signal="complete")["value"] == 3
    told = works.wire.wait_for(id=hopeless.id, signal="error")
    assert told["error"] == told["exc"] == "ValueError('never')"


# kill -9 -------------------------------------------------------------------------------------------------------------


@mortal
def test_killed(works):
    """A task whose consumer is killed runs again on another one within its lease and a second, and not before."""
    first, second = works.hire(), works.hire()
    result = works.tasks.linger()
    dead = works.by(works.wire.wait_for(id=result.id, note="begun")["pid"])
    (alive,) = {first, second} - {dead}
    killed = time.time()
    end(dead, SIGKILL)
    assert settled(works.queue, result) == ["complete"]
    assert states(result) == f"{PUT_BACK} executing complete"
    _, started, interrupted, _, again, _ = result.history()
    assert interrupted.at >= started.at + LEASE
    assert again.at <= killed + LEASE + 1 + NOISE
    assert (started.attempt, again.attempt) == (1, 2)
    assert started.worker != again.worker
    assert result.get() == 2
    assert end(alive) == 0
    works.wire.hang_up()
    assert works.wire.signals(result, pid=dead.pid) == "executing"
    assert works.wire.signals(result, pid=alive.pid) == "interrupted enqueued executing complete"


@mortal
def test_killed_alone(works):
    """The tasks of a consumer that was killed wait for the next one, and lose none of their retries."""
    works.hire("-w", "2")
    running = [works.tasks.linger(), works.tasks.linger()]
    waiting = works.tasks.add(1, 2)
    for result in running:
        works.wire.wait_for(id=result.id, note="begun")
    end(works.consumers[0], SIGKILL)
    assert [states(result) for result in running] == ["queued executing"] * 2
    works.hire()
    assert settled(works.queue, *running, waiting) == ["complete"] * 3
    assert [states(result) for result in running] == [f"{PUT_BACK} executing complete"] * 2
    assert [result.task.interruptions for result in running] == [1, 1]


@mortal
def test_locks_of_the_killed(works):
    """The locks that a killed attempt has taken are free once its lease has lapsed."""
    works.hire()
    result = works.tasks.hoard()
    works.wire.wait_for(id=result.id, note="begun")
    assert works.queue.is_locked("hoard")
    end(works.consumers[0], SIGKILL)
    assert works.queue.is_locked("hoard")
    works.hire()
    assert settled(works.queue, result) == ["complete"]
    assert result.get() is True  # the second attempt got the lock


@pytest.mark.parametrize("works", [2 * LEASE], indirect=True)
def test_heartbeat(works):
    """A task may run for longer than its lease: nobody takes it over while its consumer is alive."""
    works.hire()
    works.hire()
    result = works.tasks.linger()
    begun = works.wire.wait_for(id=result.id, note="begun")
    *_, started = result.history()
    until(lambda: time.time() > started.at + 2.5 * LEASE, "the end of its first lease")
    works.open_gate()
    assert settled(works.queue, result) == ["complete"]
    assert states(result) == "queued executing complete"
    assert works.wire.wait_for(id=result.id, signal="complete")["pid"] == begun["pid"]


# SIGSTOP -------------------------------------------------------------------------------------------------------------


@mortal
def test_frozen(works):
    """A consumer that was frozen past its lease and wakes up says nothing more, and its outcome is refused."""
    first, second = works.hire(), works.hire()
    result = works.tasks.linger()
    frozen = works.by(works.wire.wait_for(id=result.id, note="begun")["pid"])
    (other,) = {first, second} - {frozen}
    freeze(frozen, works.file)
    assert settled(works.queue, result) == ["complete"]
    history = result.history()
    works.open_gate()
    frozen.send_signal(SIGCONT)
    works.wire.wait_for(id=result.id, note="left", pid=frozen.pid)
    assert end(frozen) == 0
    assert end(other) == 0
    works.wire.hang_up()
    assert works.wire.signals(result, pid=frozen.pid) == "executing"
    assert works.wire.signals(result, pid=other.pid) == "interrupted enqueued executing complete"
    assert result.history() == history
    assert result.get() == 2
    assert f"{result.id}" in frozen.log.read_text()
    assert "too late" in frozen.log.read_text()


@mortal
def test_frozen_and_works_on(works):
    """A consumer that wakes up goes on with other tasks, and also runs those again that were taken from it."""
    consumer = works.hire()
    result = works.tasks.linger()
    works.wire.wait_for(id=result.id, note="begun")
    freeze(consumer, works.file)
    until(lambda: time.time() > works.queue.get(result.id).lease, "the end of the lease")
    works.queue.engine.recover()
    assert result.state == "queued"
    consumer.send_signal(SIGCONT)
    works.open_gate()
    assert settled(works.queue, result, works.tasks.add(1, 2)) == ["complete", "complete"]
    assert states(result) == f"{PUT_BACK} executing complete"
    assert result.get() == 2


# SIGTERM, SIGINT -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [SIGINT, SIGTERM])
def test_idle(works, how):
    """A consumer without work ends at a signal: exit code 0, all its hooks called, and nothing but news in its log."""
    consumer = works.hire("-w", "3")
    works.wire.wait_for(3, note="up")
    assert end(consumer, how) == 0
    works.wire.hang_up()
    assert len(works.wire.heard(note="down")) == 3
    log = consumer.log.read_text()
    assert "WARNING" not in log
    assert "ERROR" not in log


def test_finishes(works):
    """SIGINT lets what runs come to its end, and claims nothing more."""
    consumer = works.hire()
    running, waiting = works.tasks.linger(), works.tasks.add(1, 2)
    works.wire.wait_for(id=running.id, note="begun")
    consumer.send_signal(SIGINT)
    said(consumer, "stopping")
    works.open_gate()
    assert consumer.wait(PATIENCE) == 0
    assert states(running) == "queued executing complete"
    assert states(waiting) == "queued"


@pytest.mark.parametrize("how", [(SIGTERM, SIGTERM), (SIGINT, SIGTERM), (SIGINT, SIGINT, SIGINT)])
def test_ended_now(works, how):
    """Whoever is asked again ends at once, whatever its task does against that and however long its grace."""
    consumer = works.hire("--grace", "3600")
    result = works.tasks.stubborn()
    works.wire.wait_for(id=result.id, note="begun")
    for count, number in enumerate(how, 1):
        consumer.send_signal(number)
        if count < len(how):
            said(consumer, "stopping", count)
    assert consumer.wait(PATIENCE) == 0
    works.wire.hang_up()
    assert states(result) == PUT_BACK
    assert works.wire.signals(result) == "executing interrupted enqueued"


@pytest.mark.parametrize("chore", ["stubborn", "asleep"])
def test_grace(works, chore):
    """What cannot be interrupted is put back on its behalf after the time of grace, and the process ends."""
    consumer = works.hire("--grace", "0.3")
    result = getattr(works.tasks, chore)()
    works.wire.wait_for(id=result.id, note="begun")
    assert end(consumer, SIGTERM) == 0
    assert states(result) == PUT_BACK
    works.hire()
    assert settled(works.queue, result) == ["complete"]
    assert result.get() == 2
    works.wire.wait_for(id=result.id, signal="complete")
    assert works.wire.signals(result) == "executing interrupted enqueued executing complete"


def test_terminated_in_a_handler(works):
    """A consumer that is told to stop while a handler still runs ends as ever; what was committed stays so."""
    consumer = works.hire("--grace", "0.3", "-w", "2")
    celebrated, linger = works.tasks.celebrated(), works.tasks.linger()
    works.wire.wait_for(id=celebrated.id, note="celebrating")
    works.wire.wait_for(id=linger.id, note="begun")
    assert end(consumer, SIGTERM) == 0
    assert states(celebrated) == "queued executing complete"
    assert states(linger).endswith("executing interrupted queued")  # once more, if it was claimed along with the other


def test_one_process_for_each_consumer(works):
    """A consumer starts no other processes, so that its death leaves nobody behind."""
    consumer = works.hire("-w", "4")
    works.wire.wait_for(4, note="up")
    assert psutil.Process(consumer.pid).children() == []


# Storms --------------------------------------------------------------------------------------------------------------


def is_part_of(some, all_):
    """Are these all in that order in there?"""
    rest = iter(all_)
    return all(one in rest for one in some)


@pytest.mark.parametrize("seed", sampled([1, 2, 3]))
def test_storm(tmp_path, seed):
    """However often consumers are killed, no task is lost, none ends twice, each history is a way through the table."""
    random = Random(seed)
    with opened(tmp_path, lease=1.0, max_interruptions=1000) as works:
        ends = {works.tasks.steady: "complete", works.tasks.shaky: "complete", works.tasks.doomed: "error"}
        for _ in range(2):
            works.hire("-w", "2", "-q")
        calls = [(random.choice([*ends]), random.uniform(0.0, 0.03)) for _ in range(300)]
        results = [(function, function(number, seconds)) for number, (function, seconds) in enumerate(calls)]
        for kill in range(10):
            told = len(works.wire.told)
            works.tasks.quick.map(range(100 * kill, 100 * kill + 100))
            some = random.randrange(200)  # each of those tasks sends two signals
            until(lambda told=told, some=some: len(works.wire.told) >= told + some, "some signals")
            victim = works.consumers.pop(random.randrange(2))
            end(victim, SIGKILL)
            works.hire("-w", "2", "-q", wait=random.random() < 0.5)
        quick = [works.queue.handle(task.id) for task in works.queue.tasks(limit=2000) if task.name == "chores.quick"]
        every = [result for _, result in results] + quick
        settled(works.queue, *every, patience=2 * PATIENCE)
        for consumer in works.consumers:
            works.wire.wait_for(note="up", pid=consumer.pid)  # one that is only starting is ended by any signal
            assert end(consumer) == 0
        works.wire.hang_up()

        assert len({result.id for result in every}) == 1300
        assert {name: n for name, n in works.queue.counts().items() if n} == {
            "complete": 1000 + sum(ends[function] == "complete" for function, _ in results),
            "error": sum(ends[function] == "error" for function, _ in results),
        }
        interrupted = 0
        for number, (function, result) in enumerate([*results, *((works.tasks.quick, result) for result in quick)]):
            history = [record.state for record in result.history()]
            task = result.task
            assert is_path(history), history
            assert history[-1] == ends.get(function, "complete")
            assert history.count("executing") == task.attempt
            assert history.count("interrupted") == task.interruptions
            interrupted += task.interruptions
            # An interruption costs no retry, and a retry no more than one failure.
            failures = {works.tasks.shaky: 1, works.tasks.doomed: 3}.get(function, 0)
            assert history.count("error") == failures
            assert history.count("retrying") == min(failures, 2)
            told = works.wire.signals(result).split()
            assert is_part_of(told, [LIFECYCLE.state(state).signal for state in history[1:]]), (told, history)
            if function is works.tasks.doomed:
                with pytest.raises(TaskException, match="never"):
                    result.get()
            elif function is not works.tasks.quick:
                assert result.get() == number
        assert "locked" not in works.logs()
        assert "ERROR" not in works.logs()
        finished = (tmp_path / "finished").read_text().split()
        assert len(set(finished)) == works.queue.counts()["complete"]
        twice = len(finished) - len(set(finished))
        print(f"seed {seed}: 10 kills, {interrupted} attempts interrupted, {twice} bodies finished twice")  # noqa: T201


def test_terminated(works):
    """SIGTERM interrupts what runs: it cleans up, is put back, with its locks, and the next consumer runs it."""
    consumer = works.hire("-w", "2", "--grace", str(PATIENCE))
    linger, hoard = works.tasks.linger(), works.tasks.hoard()
    for result in (linger, hoard):
        works.wire.wait_for(id=result.id, note="begun")
    assert end(consumer, SIGTERM) == 0
    assert works.wire.heard(id=linger.id, note="left")
    assert [states(result) for result in (linger, hoard)] == [PUT_BACK] * 2
    assert not works.queue.is_locked("hoard")
    for result in (linger, hoard):
        assert works.wire.signals(result) == "executing interrupted enqueued"
    other = works.hire()
    assert settled(works.queue, linger, hoard) == ["complete"] * 2
    assert hoard.get() is True
    assert end(other) == 0
    works.wire.hang_up()
    for result in (linger, hoard):
        assert works.wire.signals(result, pid=other.pid) == "executing complete"
    for note in ("up", "down"):
        assert len(works.wire.heard(note=note, pid=consumer.pid)) == 2


def test_interrupted_at_last(works):
    """A second SIGINT interrupts what the first one would have let finish."""
    consumer = works.hire()
    result = works.tasks.linger()
    works.wire.wait_for(id=result.id, note="begun")
    consumer.send_signal(SIGINT)
    said(consumer, "stopping")
    assert end(consumer) == 0
    assert states(result) == PUT_BACK
    assert works.wire.signals(result) == "executing interrupted enqueued"
