"""Stored outcomes of attempts: values and errors are kept whole, and damage is detected."""

from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support import strategies as some
from support.strategies import patient

from lifecycle.core.table import LIFECYCLE
from lifecycle.core.task import Task
from lifecycle.errors import Undecodable
from lifecycle.execution import stored_result as outcomes

task = Task("7", "add", state="executing", attempt=3, retries=2)
whole = outcomes.pack_error(task, LIFECYCLE.state("error"), ValueError("x"))


def error_left(error):
    left = outcomes.unpack(outcomes.pack_error(task, LIFECYCLE.state("timeout"), error))
    assert (left.attempt, left.ok) == (3, False)
    return outcomes.unpack_error(left.data)


@patient
@given(st.integers(0, 2**60), st.binary())
def test_stored_value_is_read_as_it_was_stored(attempt, body):
    """A stored value is read as it was stored, with its attempt."""
    left = outcomes.unpack(outcomes.pack_value(attempt, body))
    assert (left.attempt, left.ok, left.data) == (attempt, True, body)


@patient
@given(st.text(st.characters()) | st.just("x" * 2 * outcomes.TEXT_LENGTH_LIMIT))
@example("\ud800")
def test_stored_error_has_its_text_and_traceback(text):
    """A stored error has its text and traceback, whatever the text; too long a text is cut."""
    try:
        raise ValueError(text)
    except ValueError as error:
        left = error_left(error)
    stored_text, traceback = left.pop("error"), left.pop("traceback")
    assert left == {"error_type": "ValueError", "task_id": "7", "state": "timeout", "attempt": 3, "retries": 2}
    assert stored_text == some.storable(repr(ValueError(text)))[: len(stored_text)]
    assert len(text) < outcomes.TEXT_LENGTH_LIMIT or len(stored_text) == len(traceback) == outcomes.TEXT_LENGTH_LIMIT
    assert traceback.endswith(some.storable(text[-10:]) + "\n")
    assert error_left(ValueError(text))["traceback"] == "", "it was never raised"


@pytest.mark.parametrize("error", some.BROKEN_ERRORS, ids=lambda error: type(error).__name__)
def test_error_that_cannot_be_described_is_stored_by_its_type(error):
    """An exception whose own description raises is stored by the name of its type."""
    with pytest.raises(type(error)) as caught:
        raise error
    assert type(error).__name__ in error_left(caught.value)["error"]


@patient
@given(some.damaged(whole) | some.damaged(outcomes.unpack(whole).data))
@example(b"\x81\xa1a" + b"\x91" * 5000)
@example(b"\x94\x01\xc3\xc4\x00" + b"\x91" * 5000)
@example(b"\x81\xa1a\xa1\xff")
def test_damaged_outcome_is_refused(data):
    """Bytes that are no stored outcome, or no stored error, are refused as `Undecodable`."""
    for read, kind in ((outcomes.unpack, "result"), (outcomes.unpack_error, "error")):
        with suppress(Undecodable):
            read(data)
        with pytest.raises(Undecodable, match=f"the stored {kind} is damaged"):
            read(b"")
