"""A program of two functions, and the messages of failed assertions."""

from types import SimpleNamespace

import pytest


def functions(queue):
    """Declare two functions."""

    @queue.task(name="add")
    def add(a, b=1, *rest, c=None):
        return a

    @queue.task(name="other")
    def other(a=0):
        return a

    return SimpleNamespace(add=add, other=other)


def refusal(call, *args, **kwargs):
    """Return the message of an assertion that fails."""
    with pytest.raises(AssertionError) as caught:
        call(*args, **kwargs)
    return str(caught.value)
