"""Forks beside a consumer: in its functions, its hooks, its handlers, and in the program that runs it."""

import json
import os
import signal
import subprocess
import sys

import pytest
from support.processes import PROGRAMS

CODES = {"returns": 0, "exits": 3, "exits with None": 0, "exits with a reason": 1, "raises": 1}


def run_program(name, *arguments, folder):
    """Run a program, and end its whole group of processes if it hangs; return its exit code and its output."""
    process = subprocess.Popen(
        [sys.executable, *name, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        output, complaints = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return process.returncode, output, complaints


@pytest.mark.parametrize("worker_type", ["thread", "asyncio", "process", "greenlet"])
def test_forked_child_is_no_worker_and_stops_no_consumer(tmp_path, worker_type):
    """A child that a function forks ends with the function, by its exit code; a program's child has no consumer."""
    url = f"sqlite:///{tmp_path}/forks.db"
    code, output, complaints = run_program([PROGRAMS / "forking.py"], url, worker_type, folder=tmp_path)
    assert code == 0, complaints
    seen = json.loads(output)
    assert {act: {*codes} for act, codes in seen.items() if act in CODES} == {
        act: {code} for act, code in CODES.items()
    }
    assert seen["hooks"] == ["after 3", "before 0", "complete 3", "executing 1"]
    assert (seen["program"], seen["after"], seen["state"]) == (5, [0, 1, 2], "running")
    assert seen.get("consumer of its own") == (6 if worker_type == "thread" else None)
    assert complaints.count("RuntimeError: in the child\n") == len(seen["raises"]) + 1
    assert complaints.count("a reason\n") == len(seen["exits with a reason"])
    assert "AssertionError" not in complaints


PROGRAM = """
import sys
from lifecycle import Consumer, TaskQueue

queue = TaskQueue("sqlite:///app.db")

@queue.task()
def add(a, b):
    return a + b

if __name__ == "__main__":
    consumer = Consumer(queue, 1, "process")
    consumer.start()
    print(add.name, add(1, 2).get(timeout=60))
    consumer.stop()
"""


@pytest.mark.parametrize(
    ("command", "name"),
    [(["app.py"], "app.add"), (["-m", "app"], "app.add"), (["-m", "package"], "package.__main__.add")],
    ids=str,
)
def test_functions_of_the_main_module_have_one_name_in_all_processes(tmp_path, command, name):
    """Worker processes know the functions of the main module by the names that the program gives them."""
    (tmp_path / "app.py").write_text(PROGRAM)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "__main__.py").write_text(PROGRAM)
    code, output, complaints = run_program(command, folder=tmp_path)
    assert (code, output) == (0, f"{name} 3\n"), complaints


@pytest.mark.parametrize("how", ["-c", "folder"])
def test_queue_of_a_main_module_without_a_file_is_refused(tmp_path, how):
    """Worker processes cannot import a main module without a file, or a folder's: the consumer refuses its queue."""
    (tmp_path / "__main__.py").write_text(PROGRAM)
    code, output, complaints = run_program(["-c", PROGRAM] if how == "-c" else [tmp_path], folder=tmp_path)
    assert (code, output) == (1, "")
    assert "worker processes cannot find the queue" in complaints
