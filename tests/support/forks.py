"""Child processes that are forks of the test's process."""

import itertools
import os
import select
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from support.stores import PATIENCE, PRODUCER

from lifecycle.core.task import Task
from lifecycle.storage import open_storage
from lifecycle.storage.base import Channel

# Newer Pythons warn of a fork beside threads: these tests fork beside threads on purpose.
ignore_fork_warning = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


class Fork:
    """Child process that takes its steps one by one, each at a call of `step`."""

    def __init__(self, *steps):
        self._commands, command_writer = os.pipe()
        answer_reader, self._answers = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            code = 1
            try:
                for step in steps:
                    os.read(self._commands, 1)
                    step()
                    os.write(self._answers, b".")
                code = 0
            finally:
                os._exit(code)
        os.close(self._commands)
        os.close(self._answers)
        self._command_writer, self._answer_reader = command_writer, answer_reader

    def step(self):
        """Let the child take its next step; return whether the step succeeded."""
        os.write(self._command_writer, b".")
        readable, _, _ = select.select([self._answer_reader], [], [], PATIENCE)
        assert readable, "the child hangs"
        return os.read(self._answer_reader, 1) == b"."

    def wait(self):
        """Wait for the child's end; return whether its exit code is 0."""
        os.close(self._command_writer)
        os.close(self._answer_reader)
        return os.waitpid(self.pid, 0)[1] == 0


def check_writes_after_fork(storage, where, watched, first):
    """Let parent and child write after a fork, and one of them close the store before the other one writes again."""
    storage.enqueue([Task("before", "add")], 1.0, PRODUCER)
    if watched:
        storage.wait(Channel.WORK, storage.generation(Channel.WORK), 0.01)

    def write(name):
        storage.enqueue([Task(name, "add")], 1.0, PRODUCER)
        assert storage.get(name) is not None

    child = Fork(
        lambda: write("child"), storage.close if first == "child" else lambda: write("child, later"), storage.close
    )
    write("parent")
    assert child.step()
    if first == "child":
        assert child.step()
        assert child.step()
        assert child.wait()
        write("parent, later")
    else:
        storage.close()
        assert child.step()
        assert child.step()
        assert child.wait()
    expected = {"before", "child", "parent", f"{'parent' if first == 'child' else 'child'}, later"}
    with closing(open_storage(where, "default")) as store:
        assert {task.id for task in store.tasks()} == expected


def check_forks_beside_threads(storage):
    """Fork ten times, one after the other, while threads write and wait."""
    stop = threading.Event()
    storage.counts()

    def write(name):
        for n in itertools.count():
            storage.enqueue([Task(f"{name}-{n}", "add")], 1.0, PRODUCER)
            if stop.is_set():
                return n + 1
        return 0

    def wait():
        while not stop.is_set():
            storage.wait(Channel.OUTCOME, storage.generation(Channel.OUTCOME), 0.01)

    with ThreadPoolExecutor(3) as pool:
        threads, waiting = [pool.submit(write, name) for name in "ab"], pool.submit(wait)
        for n in range(10):
            child = Fork(lambda n=n: storage.enqueue([Task(f"child-{n}", "add")], 1.0, PRODUCER))
            assert child.step()
            assert child.wait()
        stop.set()
        waiting.result()
        written = sum(thread.result() for thread in threads)
    assert storage.counts() == {"queued": written + 10}
