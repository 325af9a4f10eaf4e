"""Short ids: what `list` prints, every command takes; a beginning or end of several ids names none of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.command_line import is_one_line

from lifecycle.consumer.cli.task_ids import ShortIds

GENERATED = st.text("0123456789abcdef", min_size=32, max_size=32)
CHOSEN = st.text(min_size=1, max_size=40)
ALIKE = st.builds(
    lambda first, rest: f"{first}{'0' * (31 - len(rest))}{rest}", st.sampled_from("abc"), st.sampled_from(["", "1"])
)
"""Generated ids with long common ends."""


@given(st.sets(GENERATED | CHOSEN | ALIKE | st.text("0", min_size=1, max_size=40)), st.integers(0, 10**9))
def test_short_ids_of_a_page_are_different_ends(ids, task_count):
    """The short ids of a page are all different; each is the end of its id, of 6 characters at least, or the whole id."""
    short = ShortIds(task_count).of(ids)
    assert short.keys() == ids
    assert len({*short.values()}) == len(ids)
    assert all(one.endswith(text) and (len(text) >= 6 or text == one) for one, text in short.items())


@given(st.integers(0, 10**9), GENERATED)
def test_short_ids_grow_with_the_store(task_count, task_id):
    """The larger the store, the longer the ends: for at most one task in a thousand another id has the same end."""
    (text,) = ShortIds(task_count).of([task_id]).values()
    assert task_count / 16 ** len(text) <= 1 / 1000
    assert len(text) == 6 or task_count / 16 ** (len(text) - 1) > 1 / 1000


@pytest.mark.parametrize("command", ["show", "history", "diagram", "retry", "revoke", "cancel"])
@pytest.mark.parametrize("part", [slice(-6, None), slice(-31, None), slice(0, 31), slice(None)])
def test_commands_take_a_beginning_or_an_end_of_an_id(command_line, queue, command, part):
    """Every command takes a beginning or an end of an id that no other task has, and acts on that task."""
    result = queue.in_state["error" if command == "retry" else "scheduled"]
    length = len(result.history())
    code, out, err = command_line(command, result.id[part], "tasks")
    assert (code, err) == (0, "")
    if command in ("retry", "revoke", "cancel"):
        assert result.id in out
        queue.run_next()
        assert len(result.history()) > length
    else:
        assert result.state in out


@pytest.mark.parametrize("command", ["show", "history", "diagram", "retry", "revoke", "cancel"])
def test_an_ambiguous_id_is_bad_usage(command_line, queue, command):
    """A beginning or end of several ids is one line that names some of them, and exit code 2; nothing changes."""
    add = queue.task(name="tasks.add_more")(lambda: 0)
    for task_id in ["alpha-77", "alpha-78", "beta-78", *(f"gamma-{number}" for number in range(10))]:
        add.schedule(id=task_id)
    before = queue.counts()
    for text, named, hidden in (
        ("alpha", ["alpha-77 (tasks.add_more, queued)", "alpha-78"], "beta"),
        ("a-78", ["alpha-78", "beta-78"], "alpha-77"),
        ("gamma", ["gamma-9", "gamma-5", "…"], "gamma-4"),
    ):
        code, out, err = command_line(command, text, "tasks")
        assert (code, out) == (2, "")
        assert is_one_line(err, f"'{text}'", *named)
        assert hidden not in err
    assert queue.counts() == before


def test_a_whole_id_is_never_ambiguous(command_line, queue):
    """A task's whole id names this task, also if other ids begin or end with it."""
    add = queue.task(name="tasks.add_more")(lambda: 0)
    for task_id in ["7", "77", "a7", "7b"]:
        add.schedule(id=task_id)
    code, out, err = command_line("show", "7", "tasks")
    assert (code, err) == (0, "")
    assert out.split()[:2] == ["id", "7"]


@pytest.mark.parametrize("text", ["", "%", "_", "*", "[", "\\", "''"])
def test_no_pattern_matches_in_an_id(command_line, queue, text):
    """An id is a text, no pattern: a text that no id begins or ends with is an unknown task."""
    code, out, err = command_line("show", text, "tasks")
    assert (code, out) == (2, "")
    assert is_one_line(err, "no task" if text else "must not be empty")
