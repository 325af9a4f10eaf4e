"""What was thrown at a body strikes where it may: not within the library, and not after the body's end."""

import pytest

from lifecycle import TaskTimeout
from lifecycle.execution import interruption
from lifecycle.execution.interruption import Interrupter


@pytest.fixture
def pending(monkeypatch):
    """What was raised in a thread and waits there; it strikes where the guard provokes it, and nowhere else."""
    waits = []

    def strike():
        if waits:
            raise waits.pop()

    monkeypatch.setattr(type(interruption.THREADS), "throw", lambda self, there, error: waits.append(error))
    monkeypatch.setattr(interruption, "_receive", strike)
    return waits


def test_nothing_is_left_behind(pending):
    """What was thrown and has not struck when the body ends strikes no more, and the body's end stands."""
    one = Interrupter()
    one.arm(None, TaskTimeout)
    assert one.throw(TaskTimeout)
    assert pending == [TaskTimeout]
    one.disarm()
    assert pending == []
    assert not one.throw(TaskTimeout)


def test_what_was_thrown_before_a_call(pending):
    """What was thrown just before a call of the library strikes before it begins; the call is not entered."""
    one = Interrupter()
    one.arm(None, TaskTimeout)
    one.throw(TaskTimeout)
    with pytest.raises(TaskTimeout):
        one.enter_shield()
    one.throw(TaskTimeout)
    assert pending == [TaskTimeout], "no shield is left up"
    one.disarm()


def test_what_is_thrown_in_a_call(pending):
    """What is thrown during a call strikes when the outermost is left."""
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
