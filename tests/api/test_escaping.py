"""Users' text in log lines, errors and representations: on one line, without control characters."""

import json
import logging
import sys
import unicodedata

import pytest
from conftest import drain
from hypothesis import given
from hypothesis import strategies as st

from lifecycle import LifecycleError
from lifecycle.analysis.checker import IllegalSequence
from lifecycle.core.machine import IllegalTransition
from lifecycle.core.task import Task
from lifecycle.errors import DuplicateTask, TaskException, UnknownTask
from lifecycle.escaping import printable, printable_lines
from lifecycle.result import Result

HOSTILE = "\x1b]0;owned\x07\nERROR forged\r\x9b2J\u202etxt\u2028\u200b"
"""Sets the title of a terminal, forges a log line, clears the screen, and turns the order of characters round."""


def is_control(character):
    """Return whether a terminal or a log may take the character for anything but a sign to show."""
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(character) in (
        "LRE", "LRO", "RLE", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI",
    )  # fmt: skip


def is_safe(text):
    return not any(map(is_control, text))


def test_printable_escapes_each_control_character_of_unicode():
    """Each control character, line separator, bidirectional override and lone surrogate is escaped as Python does."""
    for character in map(chr, (*range(0x30000), *range(0xE0000, 0xE1000), sys.maxunicode)):  # the rest is unassigned
        shown = printable(character)
        if is_control(character):
            assert f"'{shown}'" == repr(character)
        assert shown == character or shown.isascii()
        assert printable_lines(character) == (character if character in "\t\n" else shown)


def test_printable_keeps_letters_of_all_scripts():
    """Letters, signs, joined emoji and unusual spaces stay as they are."""
    for text in ("add", "naïve", "日本\u3000語", "\u0645\u06cc\u200c\u062e", "👩\u200d👩\u200d👧", "a\\nb", "5\u00a0%"):
        assert printable(text) == printable_lines(text) == text


@given(st.text() | st.text(HOSTILE))
def test_printable_text_is_safe_and_stays_so(text):
    """Any text becomes safe, can be written in UTF-8, and is not escaped twice."""
    shown, lines = printable(text), printable_lines(text)
    assert is_safe(shown)
    assert is_safe(lines.replace("\n", "").replace("\t", ""))
    assert shown.encode().decode() == shown
    assert lines.encode().decode() == lines
    assert (printable(shown), printable_lines(lines)) == (shown, lines)
    assert lines.count("\n") == text.count("\n")


@pytest.mark.parametrize(
    "error",
    [
        LifecycleError(HOSTILE),
        UnknownTask(HOSTILE),
        DuplicateTask(HOSTILE),
        TaskException({"error": HOSTILE}),
        IllegalSequence(HOSTILE, 1, HOSTILE, None, ()),
        IllegalTransition(None, "start", (), HOSTILE),
    ],
    ids=lambda error: type(error).__name__,
)
def test_error_messages_are_safe(error):
    """The message of each error is one line without control characters; its attributes keep the text as it is."""
    assert "owned" in str(error)
    assert is_safe(str(error))
    kept = [*error.args, *vars(error).values()]
    assert any(HOSTILE in str(value) or HOSTILE in getattr(value, "values", list)() for value in kept)


def test_representations_of_users_objects_are_safe(queue):
    """Task, result and function show their names without control characters."""
    task = Task(HOSTILE, HOSTILE)
    add = queue.task(name="a\x1bb")(lambda: None)
    for text in (str(task), repr(task), repr(Result(queue.engine, HOSTILE)), repr(add)):
        assert is_safe(text)


def test_log_lines_of_a_hostile_name_are_safe(make, caplog):
    """A task's name and id with control characters appear escaped in each log line, whatever becomes of the task."""
    queue = make()
    caplog.set_level(logging.DEBUG)

    @queue.signal()
    def broken(signal, task, exc=None):
        raise RuntimeError

    @queue.post_execute()
    def hook(task, value, error):
        raise RuntimeError

    @queue.task(name="evil\x1b[2J\nERROR forged")
    def evil():
        raise ValueError

    evil()
    task = evil.s()
    task.id = "id\x1b[2J\nERROR forged"
    queue.enqueue(task)
    queue.enqueue(Task("no\x9bbody", "un\x1bknown\nERROR forged"))
    drain(queue)
    assert len(caplog.records) >= 6
    messages = [record.getMessage() for record in caplog.records]
    assert any("forged" in message for message in messages)
    assert [message for message in messages if not is_safe(message)] == []


def test_command_line_shows_ids_of_a_trace_safely(cli, tmp_path):
    """`check` prints ids and signals of a trace without control characters, and its errors too."""
    path = tmp_path / "trace.jsonl"
    path.write_text(json.dumps({"id": HOSTILE, "signal": HOSTILE}) + "\n" + '{"id": "\\ud800"}\n')
    code, said, _ = cli("check", path)
    assert code == 1
    assert len(said.splitlines()) == 3
    assert is_safe(said.replace("\n", ""))
    code, _, complaint = cli("check", f"{tmp_path}/{HOSTILE}")
    assert code == 2
    assert is_safe(complaint.rstrip("\n"))
