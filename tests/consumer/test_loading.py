"""Finding the queue that a command line names, in this folder or installed; otherwise an error of one line."""

import sys

import pytest

from lifecycle import ConfigurationError, TaskQueue
from lifecycle.consumer.loading import load_queue

MODULES = {
    "chores": "from lifecycle import TaskQueue\nqueue = TaskQueue('memory://')\nnothing = 5\n",
    "several": "import chores\nclass tasks:\n    queue = chores.queue\nmine = chores.queue\n",
    "broken": "def f():\n    return 1 / 0\nf()\n",
    "with_syntax_error": "def f(:\n",
    "leaving": "raise SystemExit(3)\n",
    "with_missing_import": "import something_that_is_not_there\n",
}
FAULTS = {
    "": "does not name a queue: write module:attribute",
    "tasks queue": "does not name a queue",
    "chores:": None,
    "chores": None,
    "chores:queue": None,
    "several:tasks.queue": None,
    "nowhere:queue": "there is no module 'nowhere', neither in",
    "nowhere.tasks:queue": "there is no module 'nowhere'",
    "chores:qeueu": "'chores' has no 'qeueu'; did you mean queue?",
    "chores:nothing": "chores:nothing is a int, not a TaskQueue; did you mean queue?",
    "several": "'several' has no 'queue'; did you mean mine?",
    "several:tasks.qu": "'several' has no 'tasks.qu'; did you mean queue?",
    "chores.queue": "there is no module 'chores.queue', neither in",
    "several.tasks.queue": "there is no module 'several.tasks'",
    "several.queue": "nor installed; did you mean several:mine?",
    "chores.py": "nor installed; did you mean chores?",
    "chores.py:queue": "nor installed; did you mean chores:queue?",
    "./chores.py:queue": "does not name a queue; did you mean chores:queue?",
    "app/chores.py": "does not name a queue; did you mean app.chores?",
    "app/chores": "does not name a queue; did you mean app.chores?",
    "/app/chores.py": "does not name a queue: write module:attribute",
    "queue": "'queue' is a module of Python's standard library: give yours another name",
    "test.tasks": "'test' is a module of Python's standard library",
    "broken": "'broken' cannot be imported: ZeroDivisionError: division by zero (",
    "with_syntax_error": "'with_syntax_error' cannot be imported: SyntaxError: ",
    "leaving": "'leaving' cannot be imported: SystemExit: 3",
    "with_missing_import": "'with_missing_import' cannot be imported: ModuleNotFoundError: No module named 'something_that_is_not_there'",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with modules; at the end their imports are undone."""
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name, module in [*sys.modules.items()]:
        if (getattr(module, "__file__", None) or "").startswith(f"{tmp_path}/"):
            del sys.modules[name]


@pytest.mark.parametrize("target", FAULTS)
def test_queue_is_found_by_module_and_attribute(folder, target):
    """A queue is found by module and attribute; otherwise the error is one line, with a suggestion if there is one."""
    if FAULTS[target] is None:
        assert isinstance(load_queue(target), TaskQueue)
        return
    with pytest.raises(ConfigurationError) as caught:
        load_queue(target)
    text = str(caught.value)
    assert FAULTS[target] in text
    assert "\n" not in text
    if target == "chores.queue":
        assert text.endswith("; did you mean chores:queue?")


def test_import_error_names_the_place_in_the_module(folder):
    """The error for a user's module that raises names the file and the line."""
    with pytest.raises(ConfigurationError, match=r"broken\.py, line 2\)"):
        load_queue("broken")
