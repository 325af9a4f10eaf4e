"""Child processes that are forks of the test's own."""

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

# Newer Pythons warn of a fork beside threads, which is what is tried here.
forking = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


class Fork:
    """A child process that does one thing after the other, as it is told."""

    def __init__(self, *steps):
        self._told, tell = os.pipe()
        answer, self._answer = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            code = 1
            try:
                for step in steps:
                    os.read(self._told, 1)
                    step()
                    os.write(self._answer, b".")
                code = 0
            finally:
                os._exit(code)
        os.close(self._told)
        os.close(self._answer)
        self._tell, self._heard = tell, answer

    def step(self):
        """Let it do the next thing, and wait for that."""
        os.write(self._tell, b".")
        readable, _, _ = select.select([self._heard], [], [], PATIENCE)
        assert readable, "the child hangs"
        return os.read(self._heard, 1) == b"."

    def over(self):
        """Wait for its end; whether it ended well."""
        os.close(self._tell)
        os.close(self._heard)
        return os.waitpid(self.pid, 0)[1] == 0


def parted(storage, where, watched, first):
    """Parent and child write after a fork, and one of them closes the store before the other goes on."""
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
        assert child.over()
        write("parent, later")
    else:
        storage.close()
        assert child.step()
        assert child.step()
        assert child.over()
    there = {"before", "child", "parent", f"{'parent' if first == 'child' else 'child'}, later"}
    with closing(open_storage(where, "default")) as store:
        assert {task.id for task in store.tasks()} == there


def beside_threads(storage):
    """Forks, one after the other, while threads write and wait."""
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
            assert child.over()
        stop.set()
        waiting.result()
        written = sum(thread.result() for thread in threads)
    assert storage.counts() == {"queued": written + 10}
