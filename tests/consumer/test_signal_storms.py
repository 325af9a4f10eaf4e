"""Storms of signals: hundreds of requests to stop end a consumer as one does."""

import os
import signal
import subprocess
import sys
import threading

import pytest
from support.processes import PATIENCE, consumer_group, consumer_process, environment, states, stop_process, until

from lifecycle.consumer.stop_requests import StopRequests


def storm(consumer, *numbers):
    """Send signals to a process until it ends; return its exit code."""
    late = threading.Timer(PATIENCE, consumer.kill)
    late.start()
    try:
        while consumer.poll() is None:
            for number in numbers:
                consumer.send_signal(number)
    finally:
        late.cancel()
    return consumer.returncode


def assert_clean(log):
    """Fail if a consumer has logged a traceback, or the interpreter a failed write to its descriptor for signals."""
    for word in "Traceback", "Exception", "Error":
        assert word not in log, log


@pytest.mark.parametrize("kind", ["thread", "process", "asyncio", "greenlet"])
def test_storm_of_sigterm_ends_a_consumer_as_one_does(tmp_path, kind):
    """A storm of SIGTERM that lasts until the process is gone ends it with code 0; its task is requeued."""
    with consumer_group(tmp_path) as group:
        consumer = group.start_consumer("-k", kind)
        result = (group.tasks.linger_async if kind == "asyncio" else group.tasks.linger)()
        group.events.wait_for(id=result.id, note="begun")
        assert storm(consumer, signal.SIGTERM) == 0
        assert_clean(consumer.log.read_text())
        group.release_tasks()
        after = group.start_consumer()
        until(lambda: result.state == "complete", "the task")
        assert states(result).startswith("queued executing interrupted queued executing")
        assert stop_process(after) == 0


@pytest.mark.parametrize("numbers", [[signal.SIGTERM, signal.SIGHUP], [signal.SIGHUP, signal.SIGTERM, signal.SIGINT]])
def test_storm_of_different_signals_leaves_no_traceback(tmp_path, numbers):
    """A storm of different signals, a restart among them, ends the process with code 0 and without a traceback."""
    with consumer_group(tmp_path) as group:
        consumer = group.start_consumer()
        consumer.send_signal(signal.SIGHUP)
        assert storm(consumer, *numbers) in (0, 130)  # 130: SIGINT while the new start imports
        assert_clean(consumer.log.read_text())


def test_storm_of_sigterm_during_the_import_ends_the_start(tmp_path):
    """A storm of SIGTERM while the queue's module is imported ends the process with code 0."""
    (tmp_path / "app.py").write_text(
        "import pathlib, time\npathlib.Path('here').touch()\nwhile True: time.sleep(0.01)\n"
    )
    with consumer_process(tmp_path, "app") as consumer:
        until((tmp_path / "here").exists, "the import")
        assert storm(consumer, signal.SIGTERM) == 0
        assert consumer.log.read_text() == ""


def test_storm_of_sigterm_during_the_exit_changes_nothing(tmp_path):
    """SIGTERM that comes while the interpreter ends does not change the exit code."""
    (tmp_path / "app.py").write_text(
        "import atexit, os, signal\nfrom lifecycle import TaskQueue\nqueue = TaskQueue('sqlite:///app.db')\n"
        "def end():\n    for n in range(300): os.kill(os.getpid(), signal.SIGTERM)\n    print('ended')\n"
        "atexit.register(end)\n"
        "class Last:\n    def __del__(self, kill=os.kill, me=os.getpid()): kill(me, 15)\n"
        "import sys; sys.last = Last()\n"
    )
    with consumer_process(tmp_path, "app") as consumer:
        until(lambda: "tasks:" in consumer.log.read_text(), "the start")
        assert stop_process(consumer, signal.SIGTERM) == 0
        assert "ended" in consumer.log.read_text()
        assert_clean(consumer.log.read_text())


def test_signals_that_come_faster_than_a_handler_runs_do_not_nest():
    """Signals make requests without a call of Python code, which a storm would call within itself again and again."""
    requests = StopRequests()
    before = signal.getsignal(signal.SIGUSR1)
    with requests.signals({signal.SIGUSR1: 1}):
        handler = signal.getsignal(signal.SIGUSR1)
        assert not hasattr(handler, "__code__")
        os.kill(os.getpid(), signal.SIGUSR1)
        assert requests.wait(PATIENCE) == [1]
        requests.request(5)
        assert requests.wait(PATIENCE) == [5]
        for _ in range(20_000):
            os.kill(os.getpid(), signal.SIGUSR1)
        assert {*requests.wait(PATIENCE)} == {1}
        requests.close()
        os.kill(
            os.getpid(), signal.SIGUSR1
        )  # the descriptor is still open: the interpreter writes, and does not complain
    assert signal.getsignal(signal.SIGUSR1) == before


def test_no_write_to_a_closed_descriptor():
    """The interpreter never writes to a descriptor that is closed, whenever a signal comes."""
    program = """
import os, signal, threading
from lifecycle.consumer.stop_requests import StopRequests
signal.signal(signal.SIGUSR1, lambda *_: None)
over = threading.Event()
threading.Thread(target=lambda: [os.kill(os.getpid(), signal.SIGUSR1) for _ in iter(over.is_set, True)], daemon=True).start()
for _ in range(300):
    requests = StopRequests()
    with requests.signals({signal.SIGUSR1: 1}):
        requests.close()
over.set()
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, "")
