"""Process workers: their death, their signals, their start and their limits."""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from support.postgres import postgres_store_url, unused_name
from support.processes import (
    LEASE,
    LONG,
    PATIENCE,
    PROGRAMS,
    consumer_group,
    consumer_process,
    environment,
    freeze,
    settled,
    signals,
    states,
    stop_process,
    until,
    wait_for_log,
)

from lifecycle import ConfigurationError, Consumer, TaskException, TaskQueue

REQUEUED_STATES = "queued executing interrupted queued"
METHODS = ("spawn", "fork")


@pytest.fixture
def group(request, tmp_path):
    """Consumers of `programs/chores.py`; their lease is longer than a test, unless the test sets another."""
    with consumer_group(tmp_path, **({"lease": LONG} | getattr(request, "param", {}))) as group:
        yield group


@pytest.fixture(params=METHODS)
def start_consumer(group, request):
    """Start a consumer with process workers, in each start method."""
    return lambda *options, **more: group.start_consumer("-k", "process", "--start", request.param, *options, **more)


by_fork = pytest.mark.parametrize("start_consumer", ["fork"], indirect=True)
"""Mark for tests that do not depend on the start method."""


def begun(group, result):
    """Wait until a function has begun; return its process id."""
    return group.events.wait_for(id=result.id, note="begun")["pid"]


def has_ended(pid):
    """Return whether the process has ended, be it a zombie."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def pipe_count(pid):
    """Return how many pipes the process has open."""
    count = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            count += str(descriptor.readlink()).startswith("pipe:")
    return count


# Death of a worker ---------------------------------------------------------------------------------------------------


def test_task_of_killed_worker_runs_again_at_once(group, start_consumer):
    """The task of a killed worker runs again at once, not after its lease; another worker replaces the killed one."""
    consumer = start_consumer("-w", "2")
    group.events.wait_for(2, note="up")
    result = group.tasks.linger()
    os.kill(begun(group, result), signal.SIGKILL)
    assert settled(group.queue, result) == ["complete"]
    assert states(result) == f"{REQUEUED_STATES} executing complete"
    assert result.get() == 2
    group.events.wait_for(3, note="up")
    assert len({one["pid"] for one in group.events.received(note="up")}) == 3
    assert stop_process(consumer) == 0
    assert consumer.log.read_text().count("has died; another takes its place") == 1


@by_fork
def test_task_of_worker_killed_while_draining_is_requeued(group, start_consumer):
    """The task of a worker that is killed during a graceful stop is requeued, too."""
    consumer = start_consumer("-w", "2")
    group.events.wait_for(2, note="up")
    result, other = group.tasks.linger(), group.tasks.linger()
    pid = begun(group, result)
    begun(group, other)
    consumer.send_signal(signal.SIGINT)
    wait_for_log(consumer, "stopping")
    os.kill(pid, signal.SIGKILL)
    until(lambda: states(result) == REQUEUED_STATES, "the task")
    group.release_tasks()
    assert consumer.wait(PATIENCE) == 0
    assert states(other) == "queued executing complete"


@pytest.mark.parametrize("group", [{"max_interruptions": 1}], indirect=True)
def test_task_that_kills_its_worker_rests_interrupted(group):
    """A task that kills its worker each time rests `interrupted` in the end, with the cause, and other tasks run."""
    consumer = group.start_consumer("-k", "process", "-w", "1", "--start", "fork")
    result, exits, add = group.tasks.poison(), group.tasks.dies(7), group.tasks.add(1, 2)
    assert settled(group.queue, result, exits, add) == ["interrupted", "interrupted", "complete"]
    assert stop_process(consumer) == 0  # then the last line of its log is written, too
    for one, cause in (result, "killed by SIGKILL: out of memory?"), (exits, "ended with exit code 7"):
        assert one.task.interruptions == 2
        assert states(one) == f"{REQUEUED_STATES} executing interrupted"
        with pytest.raises(TaskException, match=re.escape(cause)):
            one.get()
        log = consumer.log.read_text()
        assert log.count(f"was interrupted: its process {'was ' if 'SIG' in cause else ''}{cause}; it is requeued") == 1
        assert log.count(f"{cause}; it rests interrupted (interruption 2, 1 are allowed)") == 1


def test_workers_of_killed_consumer_requeue_their_tasks_and_end(group, start_consumer):
    """Workers whose consumer is killed requeue their tasks before the lease ends, and end by themselves."""
    consumer = start_consumer("-w", "2", "--grace", "0.3")
    group.events.wait_for(2, note="up")
    results = group.tasks.linger(), group.tasks.stubborn()
    pids = [begun(group, result) for result in results]
    stop_process(consumer, signal.SIGKILL)
    for pid in pids:
        until(lambda pid=pid: has_ended(pid), "the end of a worker")
    assert [states(result) for result in results] == [REQUEUED_STATES] * 2
    for result in results:
        assert group.events.signals(result) == "executing interrupted enqueued"


@pytest.mark.parametrize("group", [{"lease": LEASE}], indirect=True)
def test_outcome_of_frozen_worker_is_refused(group):
    """A worker that is frozen past its lease loses its task to another worker, and its outcome is refused."""
    consumer = group.start_consumer("-k", "process", "-w", "2")
    group.events.wait_for(2, note="up")
    result = group.tasks.linger()
    child = psutil.Process(begun(group, result))
    freeze(child, group.file)
    assert settled(group.queue, result) == ["complete"]
    history = result.history()
    group.release_tasks()
    child.resume()
    group.events.wait_for(id=result.id, note="left")
    wait_for_log(consumer, "too late")
    assert result.history() == history
    assert result.get() == 2
    assert stop_process(consumer) == 0
    group.events.close()
    assert group.events.signals(result, pid=child.pid) == "executing"


# Timeouts and cancellations ------------------------------------------------------------------------------------------


@by_fork
def test_timeout_interrupts_a_sleeping_function(group, start_consumer):
    """A function that sleeps in C is interrupted by its timeout at once, and its process goes on."""
    consumer = start_consumer()
    result = group.tasks.dozing()
    assert settled(group.queue, result) == ["timeout"]
    started, ended = result.history()[1:]
    assert ended.at - started.at < 1.0
    (pid,) = {one["pid"] for one in group.events.received(note="up")}
    assert group.tasks.where().get(timeout=PATIENCE) == pid
    assert stop_process(consumer) == 0


def test_worker_is_killed_if_the_function_catches_its_timeout(group, start_consumer):
    """A worker whose function catches its timeout is killed, and the task ends `timeout`."""
    consumer = start_consumer()
    result = group.tasks.ignoring_timeout()
    assert settled(group.queue, result) == ["timeout"]
    assert group.events.received(id=result.id, note="swallowed")
    group.events.wait_for(id=result.id, signal="timeout")
    assert group.events.signals(result) == signals(result) == "executing timeout"
    (pid,) = {one["pid"] for one in group.events.received(id=result.id, signal="executing")}
    assert group.tasks.where().get(timeout=PATIENCE) != pid
    assert stop_process(consumer) == 0


@by_fork
@pytest.mark.parametrize("chore", ["stubborn", "asleep"])
def test_canceled_function_is_interrupted_or_killed(group, start_consumer, chore):
    """A canceled function is interrupted where it waits, or killed if it catches that: the task ends `canceled`."""
    consumer = start_consumer()
    result = getattr(group.tasks, chore)()
    pid = begun(group, result)
    group.queue.cancel(result.id)
    assert settled(group.queue, result) == ["canceled"]
    group.events.wait_for(id=result.id, signal="canceled")
    assert group.events.signals(result) == signals(result) == "executing canceled"
    assert (group.tasks.where().get(timeout=PATIENCE) == pid) is (chore == "asleep")
    assert stop_process(consumer) == 0


def test_tasks_with_long_ids_run_time_out_and_are_requeued(group):
    """Tasks whose ids are too long for the shared status run, time out and are requeued like any other."""
    consumer = group.start_consumer("-k", "process", "--grace", "0.3")
    results = []
    for number, chore in enumerate((group.tasks.add.s(1, 2), group.tasks.dozing.s(), group.tasks.stubborn.s())):
        chore.id = "x" * 300 + str(number)
        results.append(group.queue.enqueue(chore))
    assert settled(group.queue, *results[:2]) == ["complete", "timeout"]
    group.events.wait_for(note="begun")
    assert stop_process(consumer, signal.SIGTERM) == 0
    assert states(results[2]) == REQUEUED_STATES


# Signals to all processes, and child processes of a function ---------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_to_all_processes_is_handled_by_the_consumer(group, start_consumer, number):
    """A signal to all processes, of a terminal for example, is handled by the consumer: its workers follow its stop.

    The other worker may stand between its look and its claim as the signal comes: it then claims the requeued task once.
    """
    consumer = start_consumer("-w", "2", "--grace", str(PATIENCE), start_new_session=True)
    group.events.wait_for(2, note="up")
    result = group.tasks.linger()
    begun(group, result)
    os.killpg(consumer.pid, number)
    wait_for_log(consumer, "stopping")
    if number == signal.SIGINT:
        group.release_tasks()
    assert consumer.wait(PATIENCE) == 0
    once_more = " executing interrupted queued"
    requeued = [REQUEUED_STATES, REQUEUED_STATES + once_more]
    assert states(result) in (["queued executing complete"] if number == signal.SIGINT else requeued)
    group.events.close()
    assert len(group.events.received(note="down")) == 2


def test_child_processes_of_a_function_inherit_no_signal_handling(group, start_consumer):
    """Programs that a function starts inherit no ignored or blocked signal; its forked processes can be terminated."""
    consumer = start_consumer("-w", "2")
    program = group.tasks.program()
    families = [group.tasks.family(method) for method in METHODS]
    assert program.get(timeout=PATIENCE) == "[]\n"
    assert [family.get(timeout=PATIENCE) for family in families] == [[1, 2, 3, -signal.SIGTERM]] * 2
    assert stop_process(consumer) == 0


def test_child_processes_of_a_thread_worker_inherit_no_signal_handling(group):
    """The same holds in thread workers: a signal to a forked process of a function does not stop the consumer."""
    consumer = group.start_consumer("-w", "2")
    assert group.tasks.program().get(timeout=PATIENCE) == "[]\n"
    assert group.tasks.family("fork").get(timeout=PATIENCE) == [1, 2, 3, -signal.SIGTERM]
    assert group.tasks.add(1, 2).get(timeout=PATIENCE) == 3
    assert "stopping" not in consumer.log.read_text()
    assert stop_process(consumer) == 0


# Start of a worker ---------------------------------------------------------------------------------------------------


def test_queue_that_processes_cannot_import_is_refused(tmp_path):
    """A queue that another process cannot import, or cannot see, is refused with a way out."""
    with pytest.raises(ConfigurationError, match="worker processes cannot see a queue in memory: take sqlite"):
        Consumer(TaskQueue("memory://"), worker_type="process")
    hidden = TaskQueue(f"sqlite:///{tmp_path}/app.db")
    with pytest.raises(
        ConfigurationError, match="global of a module with a file; or start them with start_method='fork'"
    ):
        Consumer(hidden, worker_type="process")
    Consumer(hidden, worker_type="process", start_method="fork")
    with pytest.raises(ConfigurationError, match="start_method='forkserver': there are spawn, fork"):
        Consumer(hidden, worker_type="process", start_method="forkserver")


BROKEN = """
import multiprocessing, os
from pathlib import Path
from lifecycle import TaskQueue
queue = TaskQueue("sqlite:///{folder}/app.db")
broken = multiprocessing.parent_process() is not None and Path("{folder}/broken").exists()
if broken and "{how}" == "import":
    raise RuntimeError("broken")

@queue.on_startup()
def up():
    if broken:
        os._exit(3)

@queue.task(name="add")
def add(a, b):
    return a + b
"""


@pytest.mark.parametrize("how", ["import", "on_startup"])
def test_worker_that_cannot_start_is_replaced_after_growing_pauses(tmp_path, how):
    """A worker that cannot start is replaced after growing pauses, until it can."""
    (tmp_path / "fragile.py").write_text(BROKEN.format(folder=tmp_path, how=how))
    (tmp_path / "broken").touch()
    queue = TaskQueue(f"sqlite:///{tmp_path}/app.db")
    result = queue.task(name="add")(lambda a, b: None)(1, 2)
    with consumer_process(tmp_path, "fragile", "-k", "process") as consumer:
        for pause in "0.5", "1":
            wait_for_log(consumer, f"could not begin; another one is started in {pause} s")
        (tmp_path / "broken").unlink()
        assert result.get(timeout=PATIENCE) == 3
        assert stop_process(consumer) == 0
    assert consumer.log.read_text().count("could not begin") <= 4
    assert "has died" not in consumer.log.read_text()
    queue.close()


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_workers_can_be_forked_beside_threads_that_use_the_queue(tmp_path, request, store):
    """No connection, lock or handler state crosses a fork: other threads use the queue while workers are forked."""
    url = f"sqlite:///{tmp_path}/app.db?synchronous=off"
    if store == "postgres":
        url = postgres_store_url(request.getfixturevalue("postgres"), schema=unused_name())
    program = subprocess.run(
        [sys.executable, PROGRAMS / "forks.py", url],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert (program.stderr, program.returncode) == ("", 0)


# Limits of a worker --------------------------------------------------------------------------------------------------


@by_fork
@pytest.mark.parametrize(
    ("limit", "runs"), [(("--max-tasks", "2"), [2, 2, 2]), (("--max-memory", "1"), [1] * 6)], ids=["tasks", "memory"]
)
def test_worker_is_replaced_at_its_limits(group, start_consumer, limit, runs):
    """A process that reaches its limit of tasks or memory is replaced, and leaves no pipe open.

    Each process runs at least one task, however low the limit.
    """
    consumer = start_consumer(*limit)
    before = pipe_count(consumer.pid)
    results = [group.tasks.where() for _ in range(6)]
    assert settled(group.queue, *results) == ["complete"] * 6
    ran = Counter(result.get() for result in results)
    assert list(ran.values()) == runs
    group.events.wait_for(len(runs) + 1, note="up")
    until(lambda: pipe_count(consumer.pid) == before, "the end of what was open for them")
    assert {one["pid"] for one in group.events.received(note="down")} == {*ran}
    assert stop_process(consumer) == 0
    assert "ERROR" not in consumer.log.read_text()
