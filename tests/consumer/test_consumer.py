"""The consumer in the process of its program: workers start, share the tasks, wait for due tasks, and extend leases."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import pytest
from support.consumers import PROMPT_SECONDS, Blocker, now, on_sqlite, plus, running, worker_threads
from support.processes import LEASE, PATIENCE, settled, states, until

from lifecycle import ConfigurationError, Consumer, TaskQueue, UnknownTask
from lifecycle.testing import VirtualClock


@pytest.fixture
def make(live):
    """Make queues on the real clock."""
    return live


# Work ----------------------------------------------------------------------------------------------------------------


def test_consumer_runs_tasks_from_start_to_stop(queue):
    """A consumer runs tasks from its start to its stop, and leaves no worker thread."""
    add = queue.task()(plus)
    early = add(1, 2)
    with running(queue, 2) as consumer:
        assert early.get(timeout=PATIENCE) == 3
        assert add(3, 4).get(timeout=PATIENCE) == 7
        consumer.stop()
        assert worker_threads(consumer) == []
    assert states(add(5, 6)) == "queued"


def test_start_names_the_queue_and_its_store(queue, caplog):
    """The log of a start has the name of the queue, and the place of its store without a password."""
    caplog.set_level("INFO", "lifecycle.consumer")
    with running(queue):
        assert f"1 workers on queue 'default' in {queue.storage.location}; tasks: " in caplog.text


def test_as_many_tasks_run_at_once_as_there_are_workers(queue):
    """A batch of tasks runs on all workers at once."""
    barrier = threading.Barrier(4)
    meet = queue.task()(lambda number: barrier.wait(PATIENCE) and number)
    with running(queue, 4):
        results = meet.map(range(4))
        assert settled(queue, *results) == ["complete"] * 4
    assert len({result.task.worker for result in results}) == 4


def test_workers_share_quick_tasks(queue):
    """All workers run tasks at once, even if one of them claims several quick tasks in one call."""
    barrier = threading.Barrier(4)
    meet = queue.task()(lambda wait: wait and barrier.wait(PATIENCE))
    with running(queue, 1):
        settled(queue, *meet.map([False] * 300))
    with running(queue, 4):
        settled(queue, *meet.map([False] * 1200))
        results = meet.map([True] * 4)
        assert settled(queue, *results) == ["complete"] * 4


def test_no_more_tasks_run_at_once_than_there_are_workers(queue):
    """No more tasks run at once than there are workers, and each runs once."""
    running_now, most, lock = [0], [0], threading.Lock()
    started = []

    @queue.task()
    def work(number):
        with lock:
            started.append(number)
            running_now[0] += 1
            most[0] = max(most[0], running_now[0])
        time.sleep(0.001)
        with lock:
            running_now[0] -= 1

    with running(queue, 3), ThreadPoolExecutor(4) as producers:
        results = list(producers.map(work, range(200)))
        assert settled(queue, *results) == ["complete"] * 200
    assert sorted(started) == list(range(200))
    assert most[0] <= 3


def test_idle_worker_is_woken_by_a_new_task(queue):
    """An idle worker is woken by a task of another thread before it asks the store by itself."""
    note = queue.task()(now)
    waits = []
    with running(queue, 2):
        for _ in range(9):
            called = time.time()
            waits.append(note().get(timeout=PATIENCE) - called)
    assert median(waits) < PROMPT_SECONDS


def test_idle_worker_starts_a_scheduled_task_at_its_eta(queue):
    """An idle worker starts a scheduled task at its ETA, not before, and not only when it asks the store by itself."""
    note = queue.task()(now)
    late = []
    with running(queue, 2):
        for _ in range(5):
            due = time.time() + 0.05
            late.append(note.schedule(delay=0.05).get(timeout=PATIENCE) - due)
    assert min(late) >= 0
    assert median(late) < PROMPT_SECONDS


def test_worker_that_waits_for_an_eta_is_woken_by_an_earlier_task(queue):
    """A worker that waits for an ETA is woken by a task that is due earlier."""
    note = queue.task()(now)
    with running(queue):
        waits = []
        for delay in (0.9, 0.91, 0.92):
            later = note.schedule(delay=delay)
            until(lambda later=later: later.state == "scheduled", "the wait")
            called = time.time()
            waits.append(note().get(timeout=PATIENCE) - called)
    assert median(waits) < PROMPT_SECONDS


@on_sqlite
def test_idle_workers_ask_the_store_once_a_second_and_write_nothing(make, monkeypatch):
    """Idle workers ask the store about once a second, and write nothing."""
    queue = make(lease=2.0)  # the consumer looks for tasks to recover four times a second
    looks, ticks = [], []
    exchange, recover = queue.storage.exchange, queue.storage.recover
    monkeypatch.setattr(queue.storage, "exchange", lambda *given: looks.append(given) or exchange(*given))
    monkeypatch.setattr(queue.storage, "recover", lambda *given, **more: ticks.append(0) or recover(*given, **more))
    with running(queue, 4):
        until(lambda: len(ticks) >= 4, "the fourth tick")
        assert len(looks) < 40  # 4 at the start and 1 a second; without a pause there would be thousands
        assert not any(done for done, _ in looks)


def test_async_functions_run_at_once_in_several_workers(queue):
    """`async` functions run in every worker, at the same time as others."""
    barrier = threading.Barrier(2)

    @queue.task()
    async def meet(number):
        await asyncio.sleep(0)
        barrier.wait(PATIENCE)
        return number

    with running(queue, 2):
        first, second = meet.map([1, 2])
        assert (first.get(timeout=PATIENCE), second.get(timeout=PATIENCE)) == (1, 2)


# Time ----------------------------------------------------------------------------------------------------------------


def test_scheduled_task_runs_when_the_virtual_clock_reaches_its_eta(make):
    """On a virtual clock a task runs at once when the test moves the clock to its ETA, and not before."""
    clock = VirtualClock()
    queue = make(clock=clock)
    add = queue.task()(plus)
    waits = []
    with running(queue, 2):
        for number in range(5):
            result = add.schedule((number, 1), delay=3600)
            due = clock.now() + 3600
            until(lambda result=result: result.state == "scheduled", "the wait for its ETA")
            clock.advance(3599.5)
            assert add(1, 2).get(timeout=PATIENCE) == 3  # a worker has asked the store
            assert result.state == "scheduled"
            moved = time.monotonic()
            clock.advance(0.5)
            assert result.get(timeout=PATIENCE) == number + 1
            waits.append(time.monotonic() - moved)
            assert [record.at for record in result.history()[-2:]] == [due, due]
    assert median(waits) < PROMPT_SECONDS


def test_task_older_than_the_retention_is_deleted(make):
    """A task that has rested longer than the queue's retention is deleted; all others stay."""
    clock = VirtualClock()
    queue = make(clock=clock, retention=3600)
    add = queue.task()(plus)
    with running(queue):
        old, waiting = add(1, 2), add.schedule((1, 2), delay=1e6)
        settled(queue, old)
        clock.advance(3599)
        young = add(3, 4)
        settled(queue, young)
        assert old.get() == 3
        clock.advance(2)
        until(lambda: queue.storage.get(old.id) is None, "the end of what is old")
        with pytest.raises(UnknownTask):
            old.get()
        assert young.get() == 7
        assert waiting.state == "scheduled"


@on_sqlite
def test_clean_up_keeps_up_with_the_tasks_that_end(make):
    """One clean-up deletes all old tasks, in steps, however many have ended since the last one."""
    queue = make(clock=VirtualClock(), retention=10)
    add = queue.task()(plus)
    for n in range(7):
        add(n, n)
    while queue.run_next():
        pass
    queue.engine.clock.advance(11)
    queue.engine.prune(10, 2)
    assert queue.tasks() == []


def test_retention_none_keeps_all_tasks(make, monkeypatch):
    """With `retention=None` no task is deleted."""
    clock = VirtualClock()
    queue = make(clock=clock, retention=None, lease=2.0)
    ticks, recover = [], queue.storage.recover
    monkeypatch.setattr(queue.storage, "recover", lambda *given, **more: ticks.append(0) or recover(*given, **more))
    add = queue.task()(plus)
    with running(queue):
        result = add(1, 2)
        settled(queue, result)
        clock.advance(1e9)
        ticks.clear()
        until(lambda: len(ticks) >= 2, "the second tick")
        assert result.get() == 3


@on_sqlite
def test_lease_is_extended_while_a_task_runs(make):
    """A task that runs longer than its lease keeps the lease, and no other worker recovers it."""
    queue, blocker = make(lease=2 * LEASE), Blocker()
    wait = queue.task()(blocker.run)
    with running(queue, 2):
        result = wait()
        blocker.wait_until_started(1)
        *_, started = result.history()
        until(lambda: time.time() > started.at + 2.5 * LEASE, "the end of its first lease")
        assert result.task.lease > time.time()
        blocker.release()
        assert settled(queue, result) == ["complete"]
    assert states(result) == "queued executing complete"


# Bad usage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, -1, 1.5, "2", True, None])
def test_number_of_workers_is_a_whole_number_of_at_least_one(workers):
    """A number of workers that is no whole number of at least one is refused."""
    with pytest.raises(ConfigurationError, match=r"workers=.*whole number"):
        Consumer(TaskQueue("memory://"), workers)


@pytest.mark.parametrize("wrong", [None, "tasks:queue", TaskQueue])
def test_object_that_is_no_queue_is_refused(wrong):
    """A consumer of an object that is no queue is refused."""
    with pytest.raises(ConfigurationError, match=r"queue=.*must be a TaskQueue"):
        Consumer(wrong)


@pytest.mark.parametrize("kind", ["fiber", "Thread", "", None, 1])
def test_unknown_worker_type_is_refused(kind):
    """An unknown worker type is refused with the list of types."""
    with pytest.raises(ConfigurationError, match=r"worker_type=.*thread"):
        Consumer(TaskQueue("memory://"), 1, kind)


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        ("workers", 10**6), ("max_tasks", 2**63), ("ready_file", 5), ("ready_file", b"a"), ("ready_file", ""),
        ("health", 8080), ("health", "1" * 501), ("restart_from", 5), ("start_method", "beam"), ("start_method", ["fork"]),
    ],
)  # fmt: skip
def test_bad_option_of_a_consumer_is_refused(option, wrong):
    """An option of a consumer of a wrong type, or out of all bounds, is refused, whatever the type of the workers."""
    with pytest.raises(ConfigurationError, match=f"{option}="):
        Consumer(TaskQueue("memory://"), **{option: wrong})


@pytest.mark.parametrize("grace", [-1, float("nan"), "2", None])
def test_bad_grace_is_refused(grace):
    """A grace that is no number of seconds, 0 or more, is refused."""
    with pytest.raises(ConfigurationError, match="grace"):
        Consumer(TaskQueue("memory://"), grace=grace)


def test_consumer_without_a_store_raises_at_its_start(tmp_path):
    """A consumer whose store is unavailable raises at its start, starts no worker, and can be started later."""
    queue = TaskQueue(f"sqlite:///{tmp_path}/later/work.db")
    consumer = Consumer(queue)
    with pytest.raises(ConfigurationError, match="there is no folder"):
        consumer.start()
    assert worker_threads(consumer) == []
    (tmp_path / "later").mkdir()
    consumer.start()
    result = queue.task()(lambda: 7)()
    assert result.get(timeout=PATIENCE) == 7
    consumer.stop()
    queue.close()
