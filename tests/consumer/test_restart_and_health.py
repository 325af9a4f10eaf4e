"""Restarts of a consumer for new code and limits, and its health for an orchestrator."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from contextlib import closing

import pytest
from support.consumers import Blocker, Outage, begin_stop, join, logged, on_sqlite, plus, running
from support.processes import PATIENCE, consumer_process, stop_process, until, wait_for_log
from support.profiles import crossed, sampled

from lifecycle import ConfigurationError, Consumer, StorageUnavailable, TaskQueue
from lifecycle.consumer import health, new_code
from lifecycle.consumer import health_server as http

KINDS = ("thread", "process", "greenlet", "asyncio")


@pytest.fixture
def make(live):
    """Make queues on the real clock."""
    return live


# Restarts ------------------------------------------------------------------------------------------------------------

MODULE = """
import os, time
from pathlib import Path
from lifecycle import TaskQueue
queue = TaskQueue("sqlite:///{folder}/app.db")
token = os.urandom(8).hex()

@queue.task(name="version")
def version(waits=False):
    while waits and not Path("{folder}/release").exists():
        time.sleep(0.005)
    return [{version}, token, os.getpid()]
"""


@pytest.fixture
def write_module(tmp_path):
    """Write the module that consumers run, in this version."""

    def write(version):
        (tmp_path / "module.py").write_text(MODULE.format(folder=tmp_path, version=version))

    write(1)
    return write


@pytest.fixture
def version(tmp_path):
    """The task of that module, for callers."""
    with closing(TaskQueue(f"sqlite:///{tmp_path}/app.db")) as queue:
        yield queue.task(name="version")(lambda waits=False: None)


@pytest.mark.parametrize("kind", sampled(KINDS))
def test_sighup_finishes_running_tasks_and_restarts_with_new_code(tmp_path, write_module, version, kind):
    """After SIGHUP running tasks finish with the old code; later tasks run with the new code, in the same process."""
    with consumer_process(tmp_path, "module", "-k", kind) as consumer:
        running_on = version(True)
        until(lambda: running_on.state == "executing", "its start")
        write_module(2)
        consumer.send_signal(signal.SIGHUP)
        wait_for_log(consumer, "stopping; running tasks are finished first")
        later = version()
        consumer.send_signal(signal.SIGHUP)  # once is enough
        (tmp_path / "release").touch()
        number, token, _ = running_on.get(timeout=PATIENCE)
        assert number == 1
        number, other, pid = later.get(timeout=PATIENCE)
        assert number == 2
        assert token != other
        assert (pid == consumer.pid) is (kind != "process")
        assert consumer.poll() is None
        assert stop_process(consumer) == 0
    assert consumer.log.read_text().count("tasks: version") == 2


def test_repeated_sighup_neither_ends_the_consumer_nor_is_lost(tmp_path, write_module, version):
    """SIGHUP at any moment of a restart neither ends the consumer nor is lost."""
    with consumer_process(tmp_path, "module") as consumer:
        wait_for_log(consumer, "tasks: version")
        write_module(2)
        for count in (2, 3):

            def again(count=count):
                consumer.send_signal(signal.SIGHUP)
                return consumer.log.read_text().count("tasks: version") >= count

            until(again, "a new start")
        assert version().get(timeout=PATIENCE)[0] == 2

        def has_settled():  # the last signal may have begun one more restart
            starts = consumer.log.read_text().count("tasks: version")
            version().get(timeout=PATIENCE)
            log = consumer.log.read_text()
            return log.count("tasks: version") == starts and log.rfind("stopping") < log.rfind("tasks: version")

        until(has_settled, "the last restart")
        assert stop_process(consumer) == 0


LATE = """
import os, signal
from lifecycle.consumer import stop_requests
restore_handlers = stop_requests.restore_handlers

def late(numbers):
    restore_handlers(numbers)
    os.kill(os.getpid(), signal.SIGHUP)

stop_requests.restore_handlers = late
"""


def test_sighup_between_run_and_exec_does_not_end_the_consumer(tmp_path, write_module, version):
    """SIGHUP between the end of a run and the exec of the next does not end the consumer."""
    with (tmp_path / "module.py").open("a") as file:
        file.write(LATE)
    with consumer_process(tmp_path, "module") as consumer:
        wait_for_log(consumer, "tasks: version")
        consumer.send_signal(signal.SIGHUP)
        wait_for_log(consumer, "tasks: version", 2)
        assert version().get(timeout=PATIENCE)[2] == consumer.pid
        assert stop_process(consumer) == 0


@pytest.mark.parametrize(
    ("kind", "limit"), crossed(["thread", "asyncio"], [("--max-tasks", "3"), ("--max-memory", "1")])
)
def test_consumer_restarts_after_max_tasks_and_max_memory(tmp_path, write_module, version, kind, limit):
    """A consumer restarts after `--max-tasks` tasks, or above `--max-memory`, but not before it has run a task."""
    with consumer_process(tmp_path, "module", "-k", kind, *limit) as consumer:
        results = [version() for _ in range(3)]
        first = [result.get(timeout=PATIENCE) for result in results]
        wait_for_log(consumer, "tasks: version", 2)
        last = version().get(timeout=PATIENCE)
        assert last[1] != first[0][1]
        assert consumer.poll() is None
        if limit[0] == "--max-tasks":
            assert {token for _, token, _ in first} == {first[0][1]}
        assert stop_process(consumer) == 0


@on_sqlite
def test_run_returns_whether_a_restart_is_due(make):
    """`Consumer.run` returns True if a limit was reached, and False after `stop`."""
    queue = make()
    add = queue.task()(plus)
    consumer, returned = Consumer(queue, max_tasks=1), []
    thread = threading.Thread(target=lambda: returned.append(consumer.run()), daemon=True)
    thread.start()
    assert add(1, 2).get(timeout=PATIENCE) == 3
    join(thread)
    thread = threading.Thread(target=lambda: returned.append(consumer.run()), daemon=True)
    thread.start()
    until(lambda: consumer.health.ready, "the next run")
    consumer.stop()
    join(thread)
    assert returned == [True, False]


# Health --------------------------------------------------------------------------------------------------------------


def get(port, path):
    """Return status and body of an answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@on_sqlite
def test_ready_file_and_port_follow_state_and_store(make, tmp_path, monkeypatch):
    """File and port say ready from the first run of tasks until a stop, except while the store is unavailable."""
    queue, blocker, file = make(), Blocker(), tmp_path / "ready"
    file.write_text("4711\n")  # left by a killed consumer
    wait = queue.task()(blocker.run)
    outage = Outage(queue.storage, monkeypatch, StorageUnavailable("gone"), "exchange", "recover")

    def answered(status, store, state):
        return get(port, "/ready") == (status, {"state": state, "store": store, "alive": 1}) and (
            file.exists() is (status == 200)
        )

    with running(queue, ready_file=file, health="127.0.0.1:0") as consumer:
        port = consumer._health_reports[1].port
        until(lambda: answered(200, True, "running"), "its readiness")
        assert file.read_text() == f"{os.getpid()}\n"
        outage.on = True
        until(lambda: answered(503, False, "running"), "the outage")
        assert get(port, "/live")[0] == 200
        outage.on = False
        until(lambda: answered(200, True, "running"), "the end of the outage")
        wait()
        blocker.wait_until_started(1)
        stop = begin_stop(consumer)
        until(lambda: answered(503, True, "draining"), "the stop")
        assert get(port, "/live")[0] == 200
        blocker.release()
        join(stop)
        assert not file.exists()
        with pytest.raises(urllib.error.URLError, match="refused"):
            get(port, "/live")


def test_health_server_before_a_report_and_without_reports(monkeypatch):
    """Before the first report a consumer is starting and not ready; without reports for long it is not alive."""
    with closing(http.HealthServer(("127.0.0.1", 0))) as server:
        starting = {"state": "starting", "store": False, "alive": 0}
        assert get(server.port, "/ready") == (503, starting)
        assert get(server.port, "/live") == (200, starting)
        assert get(server.port, "/") == (404, {"paths": ["/ready", "/live"]})
        server.report(health.Health("running", store=True, alive=1))
        assert get(server.port, "/ready")[0] == 200
        now = http.monotonic()
        monkeypatch.setattr(http, "monotonic", lambda: now + http.REPORT_TIMEOUT_SECONDS)
        assert get(server.port, "/live")[0] == 503
        assert get(server.port, "/ready")[0] == 200


def test_client_that_disconnects_leaves_no_output(capfd):
    """A client that disconnects before the answer leaves no output."""
    with closing(http.HealthServer(("127.0.0.1", 0))) as server:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", server.port)) as caller:
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                caller.sendall(b"GET /live HTTP/1.0\r\n")
        assert get(server.port, "/live")[0] == 200
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("8080", ("127.0.0.1", 8080)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),  # noqa: S104 -- what a container says
        ("[::1]:80", ("::1", 80)),
        (":80", ("127.0.0.1", 80)),
    ],
)
def test_parse_address(text, where):
    """A port alone is bound to 127.0.0.1; a host may stand before the port."""
    assert health.parse_address(text) == where


@on_sqlite
def test_unwritable_ready_file_is_logged_once(make, tmp_path, caplog):
    """A readiness file that cannot be written is logged once; tasks run all the same."""
    queue, file = make(), tmp_path / "ready"
    add = queue.task()(plus)
    with running(queue, ready_file=file):
        until(file.exists, "the file")
        file.unlink()
        file.mkdir()
        until(lambda: logged(caplog, logging.WARNING, "cannot change the readiness file"), "the warning")
        assert add(1, 2).get(timeout=PATIENCE) == 3
    assert len(logged(caplog, logging.WARNING, "cannot change the readiness file")) == 1


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--health", "nonsense"], "health='nonsense': must be a port or HOST:PORT"),
        (["--health", "localhost:65536"], "must be a port or HOST:PORT"),
        (["--health", "{taken}"], "cannot be opened"),
        (["--ready-file", "{folder}/nowhere/ready"], "the readiness file cannot be made"),
        (["--ready-file", "{folder}/tasks.py"], "there is another file of this name, which is left alone"),
        (["--worker-type", "fibre"], "worker_type='fibre': there are thread, process, greenlet, asyncio"),
        (["--worker-type", "process", "--start", "beam"], "start_method='beam': there are spawn, fork"),
        (["--max-tasks", "0"], "max-tasks"),
    ],
)
def test_wrong_option_is_one_line_and_exit_code_2(folder, cli, options, what):
    """A wrong option of a consumer is one line and exit code 2."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        known = {"taken": server.getsockname()[1], "folder": folder}
        code, out, err = cli("run", "tasks:queue", "-q", *[option.format(**known) for option in options])
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert what in err


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True])
@pytest.mark.parametrize("option", ["workers", "max_tasks", "max_memory"])
def test_numbers_below_1_are_refused(make, option, wrong):
    """`workers`, `max_tasks` and `max_memory` must be whole numbers of 1 or more."""
    with pytest.raises(ConfigurationError, match=f"{option}={wrong!r}: must be a whole number, 1 or more"):
        Consumer(make(), **{option: wrong})


# New code that cannot be imported ------------------------------------------------------------------------------------

BROKEN = {
    "syntax": ("def :", "SyntaxError"),
    "import": ("import nowhere_to_be_found", "nowhere_to_be_found"),
    "exit": ("raise SystemExit(3)", "SystemExit"),
    "no queue": ("queue = 5", "not a TaskQueue"),
    "killed": ("import os; os.kill(os.getpid(), 9)", "exit code -9"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_sighup_with_broken_code_leaves_the_old_code_running(tmp_path, write_module, version, how):
    """If the new code cannot be imported, the old code goes on and the reason is logged; mended code is taken then."""
    text, reason = BROKEN[how]
    with consumer_process(tmp_path, "module") as consumer:
        wait_for_log(consumer, "tasks: version")
        _, token, _ = version().get(timeout=PATIENCE)
        (tmp_path / "module.py").write_text(text)
        consumer.send_signal(signal.SIGHUP)
        wait_for_log(consumer, "no restart, the new code cannot be imported")
        wait_for_log(consumer, reason)
        assert version().get(timeout=PATIENCE)[:2] == [1, token]
        write_module(2)
        consumer.send_signal(signal.SIGHUP)
        wait_for_log(consumer, "tasks: version", 2)
        assert version().get(timeout=PATIENCE)[0] == 2
        assert stop_process(consumer) == 0


def test_consumer_of_a_program_checks_the_module_of_its_queue(tmp_path, write_module):
    """`Consumer.run` checks the module in which the queue is a global, and returns True once it can be imported."""
    write_module(1)
    (tmp_path / "program.py").write_text(
        "import os, signal, threading, pathlib, logging\nimport module\nfrom lifecycle import Consumer\n"
        "logging.basicConfig()\n"
        "source = pathlib.Path('module.py')\ngood = source.read_text()\nsource.write_text('def :')\n"
        "class Mend(logging.Handler):\n    def emit(self, record):\n        if 'no restart' in record.getMessage():\n"
        "            source.write_text(good)\n            os.kill(os.getpid(), signal.SIGHUP)\n"
        "logging.getLogger().addHandler(Mend())\n"
        "consumer = Consumer(module.queue)\nmodule.queue.on_startup()(lambda: os.kill(os.getpid(), signal.SIGHUP))\n"
        "print(consumer.run())\n"
    )
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=PATIENCE * 2
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
    assert done.stderr.count("no restart") == 1
    assert "SyntaxError" in done.stderr


def test_limit_with_broken_code_does_not_try_again_at_once(tmp_path, write_module, version):
    """With `--max-tasks` and broken code the consumer goes on, and looks at the code again after a pause."""
    with consumer_process(tmp_path, "module", "--max-tasks", "1") as consumer:
        wait_for_log(consumer, "tasks: version")
        (tmp_path / "module.py").write_text("def :")
        for _ in range(3):
            assert version().get(timeout=PATIENCE)[0] == 1
            wait_for_log(consumer, "no restart")
        assert stop_process(consumer) == 0
        assert consumer.log.read_text().count("no restart") == 1


def test_import_of_new_code_ends_without_its_consumer(tmp_path, monkeypatch):
    """An import that hangs is given up, and its process ends by itself, also if the consumer that waits has gone."""
    (tmp_path / "hangs.py").write_text("import threading\nthreading.Event().wait()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(new_code, "IMPORT_TIMEOUT_SECONDS", 0.1)
    assert "takes longer" in new_code.failure_of_import("hangs:queue")
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *args, timeout, **options: run(*args, timeout=PATIENCE, **options))
    assert "exit code -14" in new_code.failure_of_import("hangs:queue")
