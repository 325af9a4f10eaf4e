"""The health port under hostile clients, and the readiness file at a hostile path."""

import json
import os
import socket
import threading
import urllib.error
import urllib.request
from contextlib import ExitStack, closing, suppress

import pytest
from support.processes import PATIENCE, consumer_process, until, wait_for_log

from lifecycle import ConfigurationError, TaskQueue
from lifecycle.consumer import health
from lifecycle.consumer import health_server as http


def get(port, path):
    """Return status and body of an answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def descriptors():
    return len(os.listdir("/dev/fd"))


def test_half_requests_neither_block_the_health_port_nor_use_up_descriptors():
    """With 300 connections that send half a request, the port answers at once, in one thread, with few descriptors."""
    with closing(http.HealthServer(("127.0.0.1", 0))) as server, ExitStack() as clients:
        server.report(health.Health("running", store=True, alive=1))
        threads, before = threading.active_count(), descriptors()
        for number in range(300):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            with suppress(OSError):  # closed again already
                client.sendall(b"GET /live HTTP/1.1\r\nHost: x" if number % 2 else b"")
            if number % 50 == 49:
                assert get(server.port, "/live")[0] == 200
        assert get(server.port, "/ready")[0] == 200
        assert threading.active_count() <= threads  # a thread of an earlier test may have ended meanwhile
        assert descriptors() - before - 300 <= http.CONNECTION_LIMIT


def test_consumer_with_few_descriptors_is_alive_under_half_requests(tmp_path):
    """Under `ulimit -n 256` a consumer with 300 half requests open answers, and its tasks open files."""
    (tmp_path / "app.py").write_text(
        "from lifecycle import TaskQueue\nqueue = TaskQueue('sqlite:///app.db')\n@queue.task()\n"
        "def opens():\n    files = [open(__file__) for _ in range(100)]\n    return len(files)\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    queue = TaskQueue(f"sqlite:///{tmp_path}/app.db")
    opens = queue.task(name="app.opens")(lambda: None)
    with (
        closing(queue),
        consumer_process(tmp_path, "app", "--health", str(port), limit=256) as consumer,
        ExitStack() as clients,
    ):
        wait_for_log(consumer, "tasks: app.opens")
        for _ in range(300):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", port)))
            with suppress(OSError):
                client.sendall(b"GET /live HTTP/1.1\r\n")
        until(lambda: get(port, "/live")[0] == 200, "the answer")
        assert opens().get(timeout=PATIENCE) == 100


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /live?verbose=1 HTTP/1.0\n\n", b"200"),
        (b"HEAD /live HTTP/1.1\r\n\r\n", b"200"),
        (b"POST /live HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", b"405"),
        (b"\x16\x03\x01\n\n", b"400"),
        (b"GET /\xff\x1b HTTP/1.1\r\n\r\n", b"404"),
        (b"x" * 10_000, None),
        (b"GET /live HTTP/1.1\r\n" + b"A: b\r\n" * 2000, None),
    ],
)
def test_health_port_answers_any_bytes(request_, status):
    """Any bytes get an answer of HTTP, or the end of the connection if there are too many."""
    with (
        closing(http.HealthServer(("127.0.0.1", 0))) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client,
    ):
        answer = b""
        with suppress(OSError):  # reset, since not all was read
            client.sendall(request_)
            while received := client.recv(1000):
                answer += received
        assert answer.split(b" ")[1:2] == ([] if status is None else [status])
        assert (b"state" in answer) == (status == b"200" and not request_.startswith(b"HEAD"))


def test_slow_request_is_closed_after_its_time(monkeypatch):
    """A connection without a whole request is closed when its time is over."""
    monkeypatch.setattr(http, "REQUEST_TIMEOUT_SECONDS", 0.05)
    with (
        closing(http.HealthServer(("127.0.0.1", 0))) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client,
    ):
        client.sendall(b"GET")
        assert client.recv(1) == b""


@pytest.mark.parametrize("planted", ["link", "file"])
def test_ready_file_does_not_follow_a_link(tmp_path, planted):
    """A link or a file that is put in the place of the readiness file is replaced, and never written through."""
    path, other = tmp_path / "ready", tmp_path / "other"
    other.write_text("keep")
    file = health.ReadyFile(path)
    ready = health.Health("running", store=True, alive=1)
    file.report(ready)
    path.unlink()
    path.symlink_to(other) if planted == "link" else path.write_text("planted")
    file.report(ready)
    assert (path.is_symlink(), path.read_text(), other.read_text()) == (False, f"{os.getpid()}\n", "keep")
    path.with_name(f".ready.{os.getpid()}").symlink_to(other)
    file.report(ready)
    file.close()
    assert [one.name for one in tmp_path.iterdir()] == ["other"]
    assert other.read_text() == "keep"
    path.symlink_to(other)
    with pytest.raises(ConfigurationError, match="ready_file="):
        health.ReadyFile(path)
    assert other.read_text() == "keep"
