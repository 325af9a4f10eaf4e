"""A consumer that runs for months: new code, new processes, and whoever asks how it is."""

import json
import logging
import os
import signal
import socket
import threading
import urllib.error
import urllib.request
from contextlib import closing

import pytest
from support.consumers import Gate, Outage, ended, logged, on_sqlite, plus, running, stopping
from support.processes import PATIENCE, consuming, end, said, until
from support.profiles import crossed, sampled

from lifecycle import ConfigurationError, Consumer, StorageUnavailable, TaskQueue
from lifecycle.consumer import health
from lifecycle.consumer import health_server as http

KINDS = ("thread", "process", "greenlet", "asyncio")


@pytest.fixture
def make(live):
    """On the real clock."""
    return live


# New code ------------------------------------------------------------------------------------------------------------

NEWS = """
import os, time
from pathlib import Path
from lifecycle import TaskQueue
queue = TaskQueue("sqlite:///{folder}/app.db")
token = os.urandom(8).hex()

@queue.task(name="version")
def version(waits=False):
    while waits and not Path("{folder}/gate").exists():
        time.sleep(0.005)
    return [{version}, token, os.getpid()]
"""


@pytest.fixture
def news(tmp_path):
    """Writes the module that consumers run, of this version."""

    def write(version):
        (tmp_path / "news.py").write_text(NEWS.format(folder=tmp_path, version=version))

    write(1)
    return write


@pytest.fixture
def version(tmp_path):
    """The task of that module, as its callers know it."""
    with closing(TaskQueue(f"sqlite:///{tmp_path}/app.db")) as queue:
        yield queue.task(name="version")(lambda waits=False: None)


@pytest.mark.parametrize("kind", sampled(KINDS))
def test_new_code(tmp_path, news, version, kind):
    """SIGHUP has what runs finished by the code that began it, and what comes then run by the code that is there then.

    The process stays the same for whoever has started it.
    """
    with consuming(tmp_path, "news", "-k", kind) as consumer:
        running_on = version(True)
        until(lambda: running_on.state == "executing", "its start")
        news(2)
        consumer.send_signal(signal.SIGHUP)
        said(consumer, "stopping; running tasks are finished first")
        later = version()
        consumer.send_signal(signal.SIGHUP)  # once is enough
        (tmp_path / "gate").touch()
        number, token, _ = running_on.get(timeout=PATIENCE)
        assert number == 1
        number, other, pid = later.get(timeout=PATIENCE)
        assert number == 2
        assert token != other
        assert (pid == consumer.pid) is (kind != "process")
        assert consumer.poll() is None
        assert end(consumer) == 0
    assert consumer.log.read_text().count("tasks: version") == 2


def test_new_code_over_and_over(tmp_path, news, version):
    """SIGHUP at any moment of a new start is neither a consumer's end nor forgotten."""
    with consuming(tmp_path, "news") as consumer:
        said(consumer, "tasks: version")
        news(2)
        for count in (2, 3):

            def again(count=count):
                consumer.send_signal(signal.SIGHUP)
                return consumer.log.read_text().count("tasks: version") >= count

            until(again, "a new start")
        assert version().get(timeout=PATIENCE)[0] == 2
        assert end(consumer) == 0


LATE = """
import os, signal
from lifecycle.consumer import stop_requests as bell
give_back = bell.give_back

def late(numbers):
    give_back(numbers)
    os.kill(os.getpid(), signal.SIGHUP)

bell.give_back = late
"""


def test_new_code_at_the_last_moment(tmp_path, news, version):
    """SIGHUP as a consumer's run has ended, and its new start has not begun, does not end it."""
    with (tmp_path / "news.py").open("a") as module:
        module.write(LATE)
    with consuming(tmp_path, "news") as consumer:
        said(consumer, "tasks: version")
        consumer.send_signal(signal.SIGHUP)
        said(consumer, "tasks: version", 2)
        assert version().get(timeout=PATIENCE)[2] == consumer.pid
        assert end(consumer) == 0


@pytest.mark.parametrize(
    ("kind", "limit"), crossed(["thread", "asyncio"], [("--max-tasks", "3"), ("--max-memory", "1")])
)
def test_limits(tmp_path, news, version, kind, limit):
    """A consumer that has run as many tasks as it shall, or uses too much memory, starts anew; not before it has run one."""
    with consuming(tmp_path, "news", "-k", kind, *limit) as consumer:
        results = [version() for _ in range(3)]
        first = [result.get(timeout=PATIENCE) for result in results]
        said(consumer, "tasks: version", 2)
        last = version().get(timeout=PATIENCE)
        assert last[1] != first[0][1]
        assert consumer.poll() is None
        if limit[0] == "--max-tasks":
            assert {token for _, token, _ in first} == {first[0][1]}
        assert end(consumer) == 0


@on_sqlite
def test_a_program_of_ones_own(make):
    """`run` tells a program of one's own whether it is to be started again."""
    queue = make()
    add = queue.task()(plus)
    consumer, told = Consumer(queue, max_tasks=1), []
    thread = threading.Thread(target=lambda: told.append(consumer.run()), daemon=True)
    thread.start()
    assert add(1, 2).get(timeout=PATIENCE) == 3
    ended(thread)
    thread = threading.Thread(target=lambda: told.append(consumer.run()), daemon=True)
    thread.start()
    until(lambda: consumer.health.ready, "the next life")
    consumer.stop()
    ended(thread)
    assert told == [True, False]


# Whoever asks --------------------------------------------------------------------------------------------------------


def asked(port, path):
    """Status and body of an answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@on_sqlite
def test_readiness(make, tmp_path, monkeypatch):
    """File and port tell that it is ready from the moment it runs tasks until it stops, but not while its store is away."""
    queue, gate, file = make(), Gate(), tmp_path / "ready"
    file.write_text("of one that was killed")
    wait = queue.task()(gate.pass_through)
    outage = Outage(queue.storage, monkeypatch, StorageUnavailable("gone"), "exchange", "recover")

    def told(status, store, state):
        return asked(port, "/ready") == (status, {"state": state, "store": store, "alive": 1}) and (
            file.exists() is (status == 200)
        )

    with running(queue, ready_file=file, health="127.0.0.1:0") as consumer:
        port = consumer._health_reports[1].number
        until(lambda: told(200, True, "running"), "its readiness")
        assert file.read_text() == f"{os.getpid()}\n"
        outage.on = True
        until(lambda: told(503, False, "running"), "the bad news")
        assert asked(port, "/live")[0] == 200
        outage.on = False
        until(lambda: told(200, True, "running"), "the good news")
        wait()
        gate.until(1)
        stop = stopping(consumer)
        until(lambda: told(503, True, "draining"), "the stop")
        assert asked(port, "/live")[0] == 200
        gate.open()
        ended(stop)
        assert not file.exists()
        with pytest.raises(urllib.error.URLError, match="refused"):
            asked(port, "/live")


def test_a_port(monkeypatch):
    """A consumer that has not reported yet is starting, not ready; one that does not report any more is not alive."""
    with closing(http.HealthServer(("127.0.0.1", 0))) as port:
        starting = {"state": "starting", "store": False, "alive": 0}
        assert asked(port.number, "/ready") == (503, starting)
        assert asked(port.number, "/live") == (200, starting)
        assert asked(port.number, "/") == (404, {"paths": ["/ready", "/live"]})
        port.report(health.Health("running", store=True, alive=1))
        assert asked(port.number, "/ready")[0] == 200
        now = http.monotonic()
        monkeypatch.setattr(http, "monotonic", lambda: now + http.LIFELESS)
        assert asked(port.number, "/live")[0] == 503
        assert asked(port.number, "/ready")[0] == 200


def test_who_hangs_up(capfd):
    """Whoever asks and does not wait for the answer leaves no trace."""
    with closing(http.HealthServer(("127.0.0.1", 0))) as port:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port.number)) as caller:
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                caller.sendall(b"GET /live HTTP/1.0\r\n")
        assert asked(port.number, "/live")[0] == 200
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
def test_addresses(text, where):
    """A port alone is one of this host only; a host may stand before it."""
    assert health.address(text) == where


@on_sqlite
def test_a_file_that_cannot_be(make, tmp_path, caplog):
    """A readiness file that cannot be written is told of once, and nothing else suffers from it."""
    queue, file = make(), tmp_path / "ready"
    add = queue.task()(plus)
    with running(queue, ready_file=file):
        until(file.exists, "the file")
        file.unlink()
        file.mkdir()
        until(lambda: logged(caplog, logging.WARNING, "cannot be changed"), "the warning")
        assert add(1, 2).get(timeout=PATIENCE) == 3
    assert len(logged(caplog, logging.WARNING, "cannot be changed")) == 1


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--health", "nonsense"], "health='nonsense': it takes a port, or HOST:PORT"),
        (["--health", "localhost:65536"], "it takes a port, or HOST:PORT"),
        (["--health", "{taken}"], "cannot be opened"),
        (["--ready-file", "{folder}/nowhere/ready"], "the readiness file cannot be made"),
        (["--worker-type", "fibre"], "worker_type='fibre': there are thread, process, greenlet, asyncio"),
        (["--worker-type", "process", "--start", "beam"], "start_method='beam': there are spawn, fork"),
        (["--max-tasks", "0"], "max-tasks"),
    ],
)
def test_mistakes(folder, cli, options, what):
    """What is wrong with a consumer's options is said in one line; exit code 2."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        known = {"taken": server.getsockname()[1], "folder": folder}
        code, out, err = cli("run", "tasks:queue", "-q", *[option.format(**known) for option in options])
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert what in err


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True])
@pytest.mark.parametrize("option", ["workers", "max_tasks", "max_memory"])
def test_wrong_numbers(make, option, wrong):
    """Workers, tasks and bytes are whole numbers, 1 or more."""
    with pytest.raises(ConfigurationError, match=f"{option}={wrong!r}: must be a whole number, 1 or more"):
        Consumer(make(), **{option: wrong})
