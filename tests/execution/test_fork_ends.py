"""The end of a forked child, seen in this process: which exit code, and what is printed."""

import os

import pytest

from lifecycle.execution import forks
from lifecycle.execution.forks import OneProcess, end_forked_child


class Ended(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def exits(monkeypatch):
    """The exit codes of the processes that would have ended."""
    codes = []

    def exit_now(code):
        codes.append(code)
        raise Ended

    monkeypatch.setattr(forks.os, "_exit", exit_now)
    return codes


@pytest.mark.parametrize(
    ("error", "code", "printed"),
    [
        (None, 0, ""),
        (SystemExit(), 0, ""),
        (SystemExit(7), 7, ""),
        (SystemExit(256 + 7), 7, ""),
        (SystemExit("no reason"), 1, "no reason\n"),
        (ValueError("bad"), 1, "ValueError: bad\n"),
    ],
)
def test_exit_code_of_a_child_is_that_of_its_end(exits, capsys, error, code, printed):
    """A child ends with the exit code that Python itself would give, and prints what Python would print."""
    with pytest.raises(Ended):
        end_forked_child(os.getpid() + 1, error)
    assert exits == [code]
    assert capsys.readouterr().err.endswith(printed)


def test_process_that_called_the_function_goes_on(exits):
    """The process that called the function does not end."""
    end_forked_child(os.getpid(), ValueError())
    with pytest.raises(ValueError, match="bad"), OneProcess():
        raise ValueError("bad")
    assert exits == []


def test_child_that_leaves_a_call_ends(exits, monkeypatch):
    """A child that is forked within a call ends when it leaves the call."""
    monkeypatch.setattr(forks.this_process, "pid", 1)
    call = OneProcess()
    call.__enter__()
    monkeypatch.setattr(forks.this_process, "pid", 2)
    with pytest.raises(Ended):
        call.__exit__(None, None, None)
    assert exits == [0]
