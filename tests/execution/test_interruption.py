"""Exceptions thrown into a running function: never raised inside the library, and never after the function's end."""

import pytest

from lifecycle import TaskTimeout
from lifecycle.execution import interruption
from lifecycle.execution.interruption import Interrupter


@pytest.fixture
def pending(monkeypatch):
    """List of exceptions thrown into this thread; each is raised only where the interrupter lets it be raised."""
    waits = []

    def raise_thrown():
        if waits:
            raise waits.pop()

    monkeypatch.setattr(type(interruption.THREADS), "throw", lambda self, there, error: waits.append(error))
    monkeypatch.setattr(interruption, "_receive", raise_thrown)
    return waits


def test_exception_thrown_at_the_end_is_dropped(pending):
    """An exception that was thrown but not raised when the function ends is dropped."""
    one = Interrupter()
    one.arm(None, TaskTimeout)
    assert one.throw(TaskTimeout)
    assert pending == [TaskTimeout]
    one.disarm()
    assert pending == []
    assert not one.throw(TaskTimeout)


def test_exception_thrown_before_a_library_call_is_raised_before_it(pending):
    """An exception thrown just before a call of the library is raised before the call begins."""
    one = Interrupter()
    one.arm(None, TaskTimeout)
    one.throw(TaskTimeout)
    with pytest.raises(TaskTimeout):
        one.enter_shield()
    one.throw(TaskTimeout)
    assert pending == [TaskTimeout], "no shield is left up"
    one.disarm()


def test_exception_thrown_in_a_library_call_is_raised_after_it(pending):
    """An exception thrown during a call of the library is raised when the outermost call is left."""
    woken = []
    one = Interrupter(lambda: woken.append(1))
    one.arm(None, TaskTimeout)
    one.enter_shield()
    one.enter_shield()
    one.throw(TaskTimeout)
    assert (pending, woken) == ([], [1])
    one.leave_shield()
    with pytest.raises(TaskTimeout):
        one.leave_shield()
    one.disarm()
