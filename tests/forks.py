"""Child processes that are forks of the test's own."""

import os
import select

import pytest
from stores import PATIENCE

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
