"""Workers that are processes: what one can do to them, and they to themselves."""

import os
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
    consuming,
    end,
    environment,
    freeze,
    opened,
    said,
    settled,
    signals,
    states,
    until,
)

from lifecycle import ConfigurationError, Consumer, TaskQueue

PUT_BACK = "queued executing interrupted queued"
METHODS = ("spawn", "fork")


@pytest.fixture
def works(request, tmp_path):
    """Consumers of `programs/chores.py`; unless a test is marked so, their lease is longer than anybody would wait."""
    with opened(tmp_path, **({"lease": LONG} | getattr(request, "param", {}))) as works:
        yield works


@pytest.fixture(params=METHODS)
def hire(works, request):
    """Starts a consumer whose workers are processes that begin in either way."""
    return lambda *options, **more: works.hire("-k", "process", "--start", request.param, *options, **more)


by_fork = pytest.mark.parametrize("hire", ["fork"], indirect=True)
"""For what has nothing to do with how they begin."""


def begun(works, result):
    """The process that runs its body, once one does."""
    return works.wire.wait_for(id=result.id, note="begun")["pid"]


def gone(pid):
    """Has that process ended, or is nothing left of it but its number?"""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def pipes(pid):
    """How many pipes that process has open."""
    count = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            count += str(descriptor.readlink()).startswith("pipe:")
    return count


# Its end --------------------------------------------------------------------------------------------------------------


def test_killed(works, hire):
    """The task of a worker that is killed runs again at once, not when its lease ends; another takes its place."""
    consumer = hire("-w", "2")
    works.wire.wait_for(2, note="up")
    result = works.tasks.linger()
    os.kill(begun(works, result), signal.SIGKILL)
    assert settled(works.queue, result) == ["complete"]
    assert states(result) == f"{PUT_BACK} executing complete"
    assert result.get() == 2
    works.wire.wait_for(3, note="up")
    assert len({one["pid"] for one in works.wire.heard(note="up")}) == 3
    assert end(consumer) == 0
    assert consumer.log.read_text().count("has died; another takes its place") == 1


@by_fork
def test_killed_while_its_consumer_drains(works, hire):
    """The task of a worker that is killed during a graceful stop is put back, too."""
    consumer = hire("-w", "2")
    works.wire.wait_for(2, note="up")
    result, other = works.tasks.linger(), works.tasks.linger()
    pid = begun(works, result)
    begun(works, other)
    consumer.send_signal(signal.SIGINT)
    said(consumer, "stopping")
    os.kill(pid, signal.SIGKILL)
    until(lambda: states(result) == PUT_BACK, "the task")
    works.open_gate()
    assert consumer.wait(PATIENCE) == 0
    assert states(other) == "queued executing complete"


@pytest.mark.parametrize("works", [{"max_interruptions": 1}], indirect=True)
def test_poison(works):
    """A task that kills its worker each time rests in `interrupted` in the end, and the queue moves on."""
    consumer = works.hire("-k", "process", "-w", "1", "--start", "fork")
    result, add = works.tasks.poison(), works.tasks.add(1, 2)
    assert settled(works.queue, result, add) == ["interrupted", "complete"]
    assert result.task.interruptions == 2
    assert end(consumer) == 0


def test_orphans(works, hire):
    """Workers whose consumer is killed put back what they run, before their lease ends, and end by themselves."""
    consumer = hire("-w", "2", "--grace", "0.3")
    works.wire.wait_for(2, note="up")
    results = works.tasks.linger(), works.tasks.stubborn()
    pids = [begun(works, result) for result in results]
    end(consumer, signal.SIGKILL)
    for pid in pids:
        until(lambda pid=pid: gone(pid), "the end of a worker")
    assert [states(result) for result in results] == [PUT_BACK] * 2
    for result in results:
        assert works.wire.signals(result) == "executing interrupted enqueued"


@pytest.mark.parametrize("works", [{"lease": LEASE}], indirect=True)
def test_frozen(works):
    """A worker that is frozen past its lease loses its task to another one, and its outcome is refused."""
    consumer = works.hire("-k", "process", "-w", "2")
    works.wire.wait_for(2, note="up")
    result = works.tasks.linger()
    child = psutil.Process(begun(works, result))
    freeze(child, works.file)
    assert settled(works.queue, result) == ["complete"]
    history = result.history()
    works.open_gate()
    child.resume()
    works.wire.wait_for(id=result.id, note="left")
    said(consumer, "too late")
    assert result.history() == history
    assert result.get() == 2
    assert end(consumer) == 0
    works.wire.hang_up()
    assert works.wire.signals(result, pid=child.pid) == "executing"


# What is stopped in it -----------------------------------------------------------------------------------------------


@by_fork
def test_a_timeout_in_c(works, hire):
    """A body that sleeps is interrupted by its timeout at once, and its process goes on."""
    consumer = hire()
    result = works.tasks.dozing()
    assert settled(works.queue, result) == ["timeout"]
    started, ended = result.history()[1:]
    assert ended.at - started.at < 1.0
    (pid,) = {one["pid"] for one in works.wire.heard(note="up")}
    assert works.tasks.where().get(timeout=PATIENCE) == pid
    assert end(consumer) == 0


def test_swallows_its_timeout(works, hire):
    """A body that takes no notice of its timeout is killed with its process, and rests in `timeout` all the same."""
    consumer = hire()
    result = works.tasks.deaf()
    assert settled(works.queue, result) == ["timeout"]
    assert works.wire.heard(id=result.id, note="swallowed")
    works.wire.wait_for(id=result.id, signal="timeout")
    assert works.wire.signals(result) == signals(result) == "executing timeout"
    (pid,) = {one["pid"] for one in works.wire.heard(id=result.id, signal="executing")}
    assert works.tasks.where().get(timeout=PATIENCE) != pid
    assert end(consumer) == 0


@by_fork
@pytest.mark.parametrize("chore", ["stubborn", "asleep"])
def test_called_off(works, hire, chore):
    """A body that is called off is interrupted where it waits, or killed if it swallows that: it rests in `canceled`."""
    consumer = hire()
    result = getattr(works.tasks, chore)()
    pid = begun(works, result)
    works.queue.cancel(result.id)
    assert settled(works.queue, result) == ["canceled"]
    works.wire.wait_for(id=result.id, signal="canceled")
    assert works.wire.signals(result) == signals(result) == "executing canceled"
    assert (works.tasks.where().get(timeout=PATIENCE) == pid) is (chore == "asleep")
    assert end(consumer) == 0


def test_long_ids(works):
    """Tasks whose ids are too long to be told to the consumer are run, timed out and put back like any other."""
    consumer = works.hire("-k", "process", "--grace", "0.3")
    results = []
    for number, chore in enumerate((works.tasks.add.s(1, 2), works.tasks.dozing.s(), works.tasks.stubborn.s())):
        chore.id = "x" * 300 + str(number)
        results.append(works.queue.enqueue(chore))
    assert settled(works.queue, *results[:2]) == ["complete", "timeout"]
    works.wire.wait_for(note="begun")
    assert end(consumer, signal.SIGTERM) == 0
    assert states(results[2]) == PUT_BACK


# Signals that reach all, and what a body starts ------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_all(works, hire, number):
    """What a terminal, or a service, sends to all processes is the consumer's to heed: its workers do as it says."""
    consumer = hire("-w", "2", "--grace", str(PATIENCE), start_new_session=True)
    works.wire.wait_for(2, note="up")
    result = works.tasks.linger()
    begun(works, result)
    os.killpg(consumer.pid, number)
    said(consumer, "stopping")
    if number == signal.SIGINT:
        works.open_gate()
    assert consumer.wait(PATIENCE) == 0
    assert states(result) == ("queued executing complete" if number == signal.SIGINT else PUT_BACK)
    works.wire.hang_up()
    assert len(works.wire.heard(note="down")) == 2


def test_what_a_body_starts(works, hire):
    """Programs that bodies start inherit no signal ignored or blocked; processes that they fork can be terminated."""
    consumer = hire("-w", "2")
    program = works.tasks.program()
    families = [works.tasks.family(method) for method in METHODS]
    assert program.get(timeout=PATIENCE) == "[]\n"
    assert [family.get(timeout=PATIENCE) for family in families] == [[1, 2, 3, -signal.SIGTERM]] * 2
    assert end(consumer) == 0


def test_what_a_body_in_a_thread_starts(works):
    """The same of bodies that run in threads: a signal to a process that they fork is none to their consumer."""
    consumer = works.hire("-w", "2")
    assert works.tasks.program().get(timeout=PATIENCE) == "[]\n"
    assert works.tasks.family("fork").get(timeout=PATIENCE) == [1, 2, 3, -signal.SIGTERM]
    assert works.tasks.add(1, 2).get(timeout=PATIENCE) == 3
    assert "stopping" not in consumer.log.read_text()
    assert end(consumer) == 0


# Its beginning -------------------------------------------------------------------------------------------------------


def test_where_no_process_can_find_it(tmp_path):
    """A queue that another process cannot import, or cannot see, is refused, with what to do about it."""
    with pytest.raises(ConfigurationError, match="worker processes cannot see a queue in memory: take sqlite"):
        Consumer(TaskQueue("memory://"), worker_type="process")
    hidden = TaskQueue(f"sqlite:///{tmp_path}/app.db")
    with pytest.raises(ConfigurationError, match="global of a module; or start them with start_method='fork'"):
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
def test_cannot_begin(tmp_path, how):
    """A worker that does not get to work is replaced, after pauses that grow; once it can, all is well."""
    (tmp_path / "fragile.py").write_text(BROKEN.format(folder=tmp_path, how=how))
    (tmp_path / "broken").touch()
    queue = TaskQueue(f"sqlite:///{tmp_path}/app.db")
    result = queue.task(name="add")(lambda a, b: None)(1, 2)
    with consuming(tmp_path, "fragile", "-k", "process") as consumer:
        for pause in "0.5", "1":
            said(consumer, f"could not begin; another one is started in {pause} s")
        (tmp_path / "broken").unlink()
        assert result.get(timeout=PATIENCE) == 3
        assert end(consumer) == 0
    assert consumer.log.read_text().count("could not begin") <= 4
    assert "has died" not in consumer.log.read_text()
    queue.close()


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_forked_beside_threads(tmp_path, request, store):
    """No connection, lock or handler's state crosses a fork: other threads use the queue while workers are forked."""
    url = f"sqlite:///{tmp_path}/app.db?synchronous=off"
    if store == "postgres":
        url = postgres_store_url(request.getfixturevalue("postgres"), schema=unused_name())
    told_by = subprocess.run(
        [sys.executable, PROGRAMS / "forks.py", url],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert (told_by.stderr, told_by.returncode) == ("", 0)


# Its limits ------------------------------------------------------------------------------------------------------------


@by_fork
@pytest.mark.parametrize(
    ("limit", "runs"), [(("--max-tasks", "2"), [2, 2, 2]), (("--max-memory", "1"), [1] * 6)], ids=["tasks", "memory"]
)
def test_replaced(works, hire, limit, runs):
    """A process that has run as many tasks as it shall, or uses too much memory, is replaced, and leaves nothing behind.

    However low the limit, each runs one.
    """
    consumer = hire(*limit)
    before = pipes(consumer.pid)
    results = [works.tasks.where() for _ in range(6)]
    assert settled(works.queue, *results) == ["complete"] * 6
    ran = Counter(result.get() for result in results)
    assert list(ran.values()) == runs
    works.wire.wait_for(len(runs) + 1, note="up")
    until(lambda: pipes(consumer.pid) == before, "the end of what was open for them")
    assert {one["pid"] for one in works.wire.heard(note="down")} == {*ran}
    assert end(consumer) == 0
    assert "ERROR" not in consumer.log.read_text()
