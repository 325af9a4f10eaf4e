"""``lifecycle run --reload``: the consumer starts again with the code that was changed."""

import os
import signal
import subprocess
import sys
from types import ModuleType

import pytest
from support.command_line import TASKS
from support.processes import PATIENCE, environment, until

from lifecycle import ResultTimeout, TaskQueue
from lifecycle.consumer.cli.reload import CodeWatcher


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Let the file of a loaded module be in a folder; return its path."""

    def load(name):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("first")
        loaded = ModuleType(path.stem)
        loaded.__file__ = str(path)
        monkeypatch.setitem(sys.modules, f"reloaded_{name}", loaded)
        return path

    return load


def test_changed_files_of_loaded_modules_are_found_once(module, tmp_path):
    """A file of a loaded module that has changed is found, once; other files, new modules and lost files are not."""
    first, second = module("first.py"), module("package/second.py")
    watcher = CodeWatcher(tmp_path)
    assert watcher.changed() == []
    third = module("third.py")
    (tmp_path / "notes.py").write_text("not loaded")
    second.unlink()
    assert watcher.changed() == []
    for path in first, second, third:
        path.write_text("another text")
    assert {*watcher.changed()} == {first, second, third}
    assert watcher.changed() == []
    os.utime(first, ns=(1, 1))
    assert watcher.changed() == [first]


def test_installed_packages_are_not_watched(module, tmp_path):
    """Packages that are installed in the folder, in a virtual environment, are not watched."""
    installed = module(".venv/lib/site-packages/library.py")
    watcher = CodeWatcher(tmp_path)
    installed.write_text("another text")
    assert watcher.changed() == []


def test_run_reload_runs_the_new_code(folder):
    """With `--reload` a consumer runs the code that was saved after its start; code that cannot be imported is left alone."""
    (folder / "tasks.py").write_text(TASKS.format(url="sqlite:///tasks.db"))
    queue = TaskQueue(f"sqlite:///{folder}/tasks.db")
    add = queue.task(name="tasks.add")(lambda a, b: None)
    with (folder / "log").open("w") as log:
        consumer = subprocess.Popen(
            [sys.executable, "-m", "lifecycle", "run", "tasks", "--reload"], cwd=folder, env=environment(), stderr=log
        )
    try:
        assert add(1, 2).get(timeout=PATIENCE) == 3
        (folder / "tasks.py").write_text(TASKS.format(url="sqlite:///tasks.db").replace("a + b", "a * 100 + b"))
        assert 102 in (value_of(add(1, 2)) for _ in range(10_000))
        (folder / "tasks.py").write_text("this is no Python")
        until(lambda: "SyntaxError" in (folder / "log").read_text(), "the refusal of the code")
        assert value_of(add(1, 2)) == 102
        (folder / "tasks.py").write_text(TASKS.format(url="sqlite:///tasks.db").replace("a + b", "a * 1000 + b"))
        assert 1002 in (value_of(add(1, 2)) for _ in range(10_000))
    finally:
        consumer.send_signal(signal.SIGTERM)
        assert consumer.wait(PATIENCE) == 0
        queue.close()
    assert "tasks.py" in (folder / "log").read_text()


def value_of(result):
    """Return the value of a task; None if it takes long."""
    try:
        return result.get(timeout=PATIENCE)
    except ResultTimeout:
        return None
