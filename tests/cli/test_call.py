"""``lifecycle call``: its arguments, its output and its errors."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.command_line import is_one_line

from lifecycle.consumer.cli.call import _parse

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.lists(JSON), st.dictionaries(st.from_regex(r"[a-z_][a-z0-9_]{0,5}", fullmatch=True), JSON))
def test_json_arguments_arrive_as_they_are(args, kwargs):
    """Any values, written as JSON, are the arguments; ``name=`` makes a keyword argument."""
    texts = [*map(json.dumps, args), *(f"{name}={json.dumps(value)}" for name, value in kwargs.items())]
    assert _parse(texts) == (tuple(args), kwargs)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["Ann", "2026-11-28", "a b", ""], (("Ann", "2026-11-28", "a b", ""), {})),
        (["01", "1.50", "True"], (("01", 1.5, "True"), {})),
        (['"a=b"', "to=a=b", "x="], (("a=b",), {"to": "a=b", "x": ""})),
        (["größe=1", "1a=2"], None),
    ],
)
def test_other_arguments_are_texts(texts, expected):
    """An argument that is no JSON is a text; a text with ``name=`` at its beginning is written as JSON."""
    if expected is None:
        with pytest.raises(Exception, match="write keyword arguments last"):
            _parse(texts)
    else:
        assert _parse(texts) == expected


def test_call_enqueues_a_task_and_prints_it(command_line, queue):
    """`call` enqueues one task, and prints its id and its call as they were understood."""
    code, out, err = command_line("call", "tasks:add", "[1]", "b=Ann", "--delay", "60", "--priority", "3")
    assert (code, err) == (0, "")
    task = queue.tasks(limit=1)[0]
    assert out == f"task {task.id} is queued: tasks.add([1], b='Ann')\n"
    assert (task.call, task.priority) == ((([1],), {"b": "Ann"}), 3)
    assert task.eta is not None
    code, out, err = command_line("call", "tasks:add", "1", "2", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {"id": queue.tasks(limit=1)[0].id, "state": "queued"}


def test_call_waits_for_the_result(command_line, queue, folder):
    """With `--wait` the result is printed; a failed task is an error with its traceback, and exit code 1."""
    (folder / "now.py").write_text(
        (folder / "tasks.py").read_text().replace("TaskQueue(", "TaskQueue(immediate=True, url=")
    )
    assert command_line("call", "now:add", "1", "2", "--wait", "5") == (0, "3\n", "")
    code, out, err = command_line("call", "now:add", "1", "2", "--wait", "5", "--json")
    assert (code, json.loads(out)["result"], err) == (0, 3, "")
    code, out, err = command_line("call", "now:always_fails", "--wait", "5")
    assert code == 1
    assert "ValueError: never" in out
    assert is_one_line(err, "error", "ValueError('never')")
    code, out, err = command_line("call", "tasks:add", "1", "2", "--delay", "3600", "--wait", "0")
    assert (code, out) == (1, "")
    assert is_one_line(err, "no outcome", "queued")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["tasks:add", "1"], ["add()", "'b'"]),
        (["tasks:add", "{a", "1"], ["'{a'", "no JSON"]),
        (["tasks:add", "[" * 100_000, "1"], ["no JSON"]),
        (["tasks:add", "a=1", "2"], ["'2'", "a=", "last"]),
        (["tasks:add", "a=1", "a=2"], ["a is given twice"]),
        (["tasks:add", "1", "-2"], ["-2"]),
        (["tasks:add", "1", "2", "--delay", "nan"], ["delay"]),
        (["tasks"], ["'tasks'", "tasks:add"]),
        (["tasks:queue"], ["TaskQueue", "did you mean add, always_fails?"]),
        (["tasks:nothing"], ["nothing"]),
        (["private:add", "1", "2"], ["private:add", "memory"]),
    ],
)
def test_wrong_calls_are_one_line_and_enqueue_nothing(command_line, queue, folder, arguments, parts):
    """A call that cannot be right is one line and exit code 2, and nothing is enqueued."""
    (folder / "private.py").write_text(
        (folder / "tasks.py").read_text().replace(f"sqlite:///{folder}/tasks.db", "memory://")
    )
    before = queue.counts()
    code, out, err = command_line("call", *arguments)
    assert (code, out) == (2, "")
    assert is_one_line(err, *parts), err
    assert queue.counts() == before
