"""The look at new code before a restart, within this process."""

import logging

import pytest

from lifecycle import TaskQueue
from lifecycle.consumer import new_code
from lifecycle.consumer.new_code import NewCode, failure_of_import


def module(folder, text, monkeypatch):
    """Write a module of tasks."""
    (folder / "app_of_new_code.py").write_text(text)
    monkeypatch.syspath_prepend(folder)
    return "app_of_new_code:queue"


GOOD = "from lifecycle import TaskQueue\nqueue = TaskQueue('memory://')\n"


def test_code_that_can_be_imported_has_no_failure(tmp_path, monkeypatch):
    """There is no failure of code that can be imported."""
    assert failure_of_import(module(tmp_path, GOOD, monkeypatch)) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [("raise RuntimeError('broken')\n", "RuntimeError: broken"), ("import os\nos._exit(3)\n", "ends its process: exit code 3")],
)  # fmt: skip
def test_failure_of_an_import_is_said(tmp_path, monkeypatch, text, says):
    """The failure of an import is its traceback, or the exit code of its process."""
    assert says in failure_of_import(module(tmp_path, text, monkeypatch))


def test_import_that_takes_too_long_has_failed(tmp_path, monkeypatch):
    """An import that takes too long has failed; so has one for which there can be no process."""
    target = module(tmp_path, "import threading\nthreading.Event().wait()\n", monkeypatch)
    monkeypatch.setattr(new_code, "IMPORT_TIMEOUT_SECONDS", 0.2)
    assert "takes longer than 0.2 s" in failure_of_import(target)
    monkeypatch.setattr(new_code.sys, "executable", "/no/such/python")
    assert "no process can be started" in failure_of_import(target)


def test_failed_import_leaves_the_old_code(tmp_path, monkeypatch, caplog):
    """After a failed import the old code goes on, and an import that nobody asked for waits."""
    starts, target = [], module(tmp_path, "raise RuntimeError('broken')\n", monkeypatch)
    code = NewCode(target, TaskQueue("memory://"), lambda: starts.append(1))
    code.check(requested=False)
    code._thread.join()
    assert "RuntimeError: broken" in caplog.text
    module(tmp_path, GOOD, monkeypatch)
    code.check(requested=False)  # too soon
    assert starts == []
    code.check(requested=True)
    code._thread.join()
    assert starts == [1]


def test_queue_of_a_program_itself_starts_anew_at_once(caplog):
    """The code of a queue that no module has is known to the program alone: the start is not checked."""
    starts = []
    with caplog.at_level(logging.ERROR):
        NewCode(None, TaskQueue("memory://"), lambda: starts.append(1)).check(requested=True)
    assert starts == [1]
    assert caplog.text == ""
