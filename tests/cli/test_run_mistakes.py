"""The errors of `lifecycle run` for a wrong queue or wrong options."""

import signal
import sqlite3
import subprocess
import sys

import pytest
from support.command_line import TASKS, is_one_line, process
from support.processes import PATIENCE, environment, until
from support.profiles import sampled

MODULES = {
    "raises": "\nx = 1\nraise ValueError('uh-oh\\nand more')\n",
    "typo": "queue = = 1\n",
    "leaves": "import sys\nsys.exit(0)\n",
    "needy": "import os\nimport not_there.at_all\n",
    "deep.er": "import not_there\n",
    "unknown": "from lifecycle import TaskQueue\nqueue = TaskQueue('mysql://localhost')\n",
    "folderly": TASKS.format(url="sqlite:///folder"),
    "foreign": TASKS.format(url="sqlite:///foreign.db"),
    "textual": TASKS.format(url="sqlite:///notes.txt"),
    "nowhere": TASKS.format(url="sqlite:///not/there.db"),
}
MISTAKES = {
    "no such module": (["taks:queue"], ["'taks'", "no module"]),
    "no such module in a package": (["deep.est:queue"], ["'deep.est'", "no module"]),
    "a name that is none": (["tasks.py:queue!"], ["'tasks.py:queue!'", "tasks:queue"]),
    "no name": ([":queue"], ["':queue'", "tasks:queue"]),
    "no such attribute": (["tasks:qeue"], ["'qeue'", "did you mean queue?"]),
    "no queue": (["tasks:add"], ["tasks:add", "TaskFunction", "did you mean queue?"]),
    "a module that raises": (["raises:queue"], ["'raises'", "ValueError: uh-oh", "raises.py, line 3"]),
    "a module with a typo": (["typo:queue"], ["'typo'", "SyntaxError", "typo.py, line 1"]),
    "a module that leaves": (["leaves:queue"], ["'leaves'", "SystemExit", "leaves.py, line 2"]),
    "a module that lacks one": (["needy:queue"], ["'needy'", "not_there", "needy.py, line 2"]),
    "a module in a package that lacks one": (["deep.er:queue"], ["'deep.er'", "not_there", "er.py, line 1"]),
    "a scheme that is none": (["unknown:queue"], ["'unknown'", "mysql", "sqlite", "unknown.py, line 2"]),
    "a folder for a file": (["folderly:queue"], ["folder", "name a file in it"]),
    "another program's file": (["foreign:queue"], ["foreign.db", "another program's", "album"]),
    "a text": (["textual:queue"], ["notes.txt", "not a database"]),
    "no such folder": (["nowhere:queue"], ["no folder", "not"]),
    "no workers": (["tasks:queue", "-w", "0"], ["-w", "1"]),
    "half a worker": (["tasks:queue", "-w", "1.5"], ["-w", "integer"]),
    "no such kind of worker": (["tasks:queue", "-k", "fiber"], ["fiber", "thread"]),
    "less than no grace": (["tasks:queue", "--grace", "-1"], ["--grace", "0"]),
}


@pytest.fixture
def wrong_modules(folder):
    """Modules with errors, in a folder whose name looks like markup."""
    where = folder / "a [/b] c"
    (where / "folder").mkdir(parents=True)
    (where / "deep").mkdir()
    for name, text in (MODULES | {"tasks": (folder / "tasks.py").read_text()}).items():
        (where / f"{name.replace('.', '/')}.py").write_text(text)
    (where / "notes.txt").write_text("Buy milk, and a longer text than that, so that it is no header.\n" * 20)
    db = sqlite3.connect(where / "foreign.db")
    db.execute("create table album(title)")
    db.close()
    return where


@pytest.mark.parametrize("name", sampled(MISTAKES, each=3))
def test_wrong_queue_or_option_is_one_line_and_exit_code_2(wrong_modules, name):
    """An error in the queue or in an option of `run` is one line that names it, and exit code 2; no file is changed.

    An error of a module has its traceback above the line, from the user's first line of code on.
    """
    arguments, parts = MISTAKES[name]
    before = {file: file.read_bytes() for file in wrong_modules.rglob("*.*") if file.suffix != ".pyc"}
    code, out, err = process("run", *arguments, cwd=wrong_modules)
    assert (code, out) == (2, "")
    *above, line = err.splitlines(keepends=True)
    assert is_one_line(line, *parts), err
    in_module = next((name for name in MODULES if f"'{name}' cannot be imported" in line), None)
    assert bool(above) is (in_module is not None)
    if in_module is not None:  # the traceback begins with the user's code
        assert "importlib" not in err
        first = next(text for text in above if "File" in text)
        assert f"{in_module.replace('.', '/')}.py" in first
    assert {file: file.read_bytes() for file in wrong_modules.rglob("*.*") if file.suffix != ".pyc"} == before


def test_missing_module_error_names_the_folder(wrong_modules):
    """The error for a missing module names the folder in which it was looked for."""
    assert str(wrong_modules) in process("run", "taks:queue", cwd=wrong_modules)[2]


def test_import_error_names_the_file(wrong_modules):
    """The error for a module that cannot be imported names the full path of the file with the error."""
    assert str(wrong_modules / "raises.py") in process("run", "raises:queue", cwd=wrong_modules)[2]


def test_ctrl_c_during_an_import_ends_run_without_traceback(folder):
    """Ctrl-C during the import of the user's module ends `run` with one line and exit code 130."""
    (folder / "slow.py").write_text("import time\nopen('here', 'w').close()\ntime.sleep(3600)\n")
    started = subprocess.Popen(
        [sys.executable, "-m", "lifecycle", "run", "slow:queue"],
        cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until((folder / "here").exists, "the import")
    started.send_signal(signal.SIGINT)
    _, err = started.communicate(timeout=PATIENCE)
    assert started.returncode == 130
    assert is_one_line(err, "interrupted")
