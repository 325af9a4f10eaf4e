"""The log of `lifecycle run`: the program's configuration wins, in worker processes, too; else lines on stderr."""

import json
import logging
import os
import pty
import signal
import subprocess
import sys
from contextlib import ExitStack, closing

import pytest
from support.processes import PATIENCE, consumer_process, environment, stop_process, until, wait_for_log

from lifecycle import ConfigurationError, Consumer, TaskQueue
from lifecycle.consumer.log_output import LogOptions

TASKS = """
import logging, logging.config, sys
from lifecycle import TaskQueue
{setup}
log = logging.getLogger(__name__)
queue = TaskQueue("sqlite:///app.db")

@queue.task()
def work(fails=False):
    print("printed")
    log.info("of the task")
    if fails:
        raise ValueError("uh-oh")
    return 1
"""
DICT = {
    "version": 1,
    "formatters": {"own": {"format": "OWN %(name)s %(levelname)s %(message)s"}},
    "handlers": {"file": {"class": "logging.FileHandler", "filename": "own.log", "formatter": "own"}},
    "root": {"handlers": ["file"], "level": "INFO"},
}
INI = """
[loggers]
keys = root
[handlers]
keys = file
[formatters]
keys = own
[logger_root]
level = INFO
handlers = file
[handler_file]
class = FileHandler
args = ("own.log",)
formatter = own
[formatter_own]
format = OWN %(name)s %(levelname)s %(message)s
"""
TOML = """
[formatters.own]
format = "OWN %(name)s %(levelname)s %(message)s"
[handlers.file]
class = "logging.FileHandler"
filename = "own.log"
formatter = "own"
[root]
handlers = ["file"]
level = "INFO"
"""
FILES = {"log.json": json.dumps(DICT), "log.ini": INI, "log.toml": TOML}
BASIC = "logging.basicConfig(filename='own.log', level='INFO', format='OWN %(name)s %(levelname)s %(message)s')"


@pytest.fixture
def start(tmp_path):
    """Start `lifecycle run` with a module and options; return the process and the queue."""
    started, queues, files = [], [], ExitStack()

    def begin(*options, setup="", **streams):
        (tmp_path / "jobs.py").write_text(TASKS.format(setup=setup))
        for name, text in FILES.items():
            (tmp_path / name).write_text(text)
        output = {"stdout": "out", "stderr": "err"} | streams
        for name, file in output.items():
            output[name] = files.enter_context((tmp_path / file).open("w")) if isinstance(file, str) else file
        command = [sys.executable, "-m", "lifecycle", "run", "jobs", *options]
        without = {name: value for name, value in environment(COLUMNS="200").items() if name != "PYTHONUNBUFFERED"}
        started.append(subprocess.Popen(command, cwd=tmp_path, env=without, **output))
        queues.append(TaskQueue(f"sqlite:///{tmp_path}/app.db"))
        work = queues[-1].task(name="jobs.work")(lambda fails=False: None)
        return started[-1], work

    yield begin
    for process, queue in zip(started, queues, strict=True):
        process.kill()
        process.wait()
        queue.close()
    files.close()


def ran(process, *results):
    """Wait for tasks, then stop the consumer."""
    for result in results:
        until(lambda result=result: result.state in ("complete", "error"))
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("kind", ["thread", "process"])
@pytest.mark.parametrize(
    ("setup", "options"),
    [
        (BASIC, []),
        (f"logging.config.dictConfig({DICT})", []),
        ("", ["--log-config", "log.json"]),
        ("", ["--log-config", "log.ini"]),
        ("logging.basicConfig(level='CRITICAL')", ["--log-config", "log.toml"]),
    ],
)
def test_configuration_of_the_program_or_of_a_file_wins(start, tmp_path, setup, options, kind):
    """What a module or a file configures holds for all lines, and no line is written elsewhere or muted."""
    process, work = start("-k", kind, *options, setup=setup)
    done, failed = work(), work(True)
    ran(process, done, failed)
    text = (tmp_path / "own.log").read_text()
    assert "OWN jobs INFO of the task" in text
    assert f"OWN lifecycle.task INFO task complete: function=jobs.work task={done.id}" in text
    assert f"OWN lifecycle.task ERROR task error (attempt 1 of 1): function=jobs.work task={failed.id}" in text
    assert "Traceback (most recent call last):" in text
    assert "OWN lifecycle.consumer INFO" in text
    assert (tmp_path / "err").read_text() == ""


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_json_lines_have_the_fields_of_a_task(start, tmp_path, kind):
    """With `--log-format json` each line is an object; a line about a task has the task's values as keys."""
    process, work = start("-k", kind, "--log-format", "json")
    done, failed = work(), work(True)
    ran(process, done, failed)
    lines = [json.loads(line) for line in (tmp_path / "err").read_text().splitlines()]
    assert all(line.keys() >= {"time", "level", "logger", "message"} for line in lines)
    of_done, of_failed = (next(line for line in lines if line.get("task") == one.id) for one in (done, failed))
    assert (of_done["level"], of_done["state"], of_done["function"]) == ("INFO", "complete", "jobs.work")
    assert (of_failed["level"], of_failed["error"], of_failed["attempt"]) == ("ERROR", "ValueError", 1)
    assert of_failed["traceback"].endswith("ValueError: uh-oh")
    assert [line["message"] for line in lines if line["logger"] == "jobs"] == ["of the task"] * 2


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_printed_lines_leave_the_process_at_once(start, tmp_path, kind):
    """A line that a task prints is in the pipe when the task is over, even if the consumer is killed then."""
    reader, writer = os.pipe()
    process, work = start("-k", kind, stdout=writer)
    os.close(writer)
    with os.fdopen(reader) as output:
        result = work()
        until(lambda: result.state == "complete")
        process.kill()
        assert output.readline() == "printed\n"


def test_lines_on_a_terminal_have_their_level_once(start, tmp_path):
    """On a terminal each line has its level once."""
    ours, theirs = pty.openpty()
    process, work = start(stderr=theirs)
    os.close(theirs)
    text = ""
    with os.fdopen(ours, errors="replace") as terminal:
        result = work()
        until(lambda: result.state == "complete")
        while "task complete" not in text:
            text += terminal.readline()
        process.send_signal(signal.SIGTERM)
        line = next(line for line in text.splitlines() if "task complete" in line)
        assert line.count("INFO") == 1
        assert "lifecycle.task" in line
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["-q", "-v"], "not both"),
        (["-q", "--log-level", "debug"], "not both"),
        (["--log-config", "log.json", "--log-format", "json"], "not both"),
        (["--log-level", "loud"], "loud"),
        (["--log-format", "xml"], "xml"),
        (["--log-config", "none.json"], "none.json: FileNotFoundError"),
        (["--log-config", "jobs.py"], "must end in"),
    ],
)
def test_options_that_cannot_be_are_refused(start, tmp_path, options, part):
    """Options that contradict each other, and files that are not there or no configuration, end `run` with exit code 2."""
    process, _ = start(*options)
    assert process.wait(PATIENCE) == 2
    assert part in (tmp_path / "err").read_text()


@pytest.mark.parametrize("text", ["{", "[]", '{"handlers": {"x": {"class": "no.such"}}}', "[" * 10**5])
def test_file_that_is_no_configuration_is_refused(tmp_path, text):
    """A file that is no configuration is refused by its name."""
    path = tmp_path / "log.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"log_config=.*log\.json: "):
        LogOptions(config=path).before_import()


def test_format_for_a_program_that_configures_logging_is_said_to_be_unused(start, tmp_path):
    """`--log-format` is of no use for a program that configures logging itself: a warning says so."""
    process, work = start("--log-format", "json", setup=BASIC)
    ran(process, work())
    assert "the log's format is not changed" in (tmp_path / "own.log").read_text()


def test_consumer_enables_the_loggers_that_a_program_has_disabled(add, queue):
    """A `dictConfig` after the import of the library, which disables all loggers it does not name, mutes no consumer."""
    logger = logging.getLogger("lifecycle.task")
    logger.disabled = True
    consumer = Consumer(queue)
    consumer.start()
    consumer.stop()
    assert not logger.disabled


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_import_error_of_a_module_has_the_users_traceback(start, tmp_path, kind):
    """An error of a module, here or in a worker process alone, is logged with the traceback of the user's code."""
    only_in_workers = "import multiprocessing\nif multiprocessing.parent_process(): "
    setup = (only_in_workers if kind == "process" else "") + "import json; json.loads('{')"
    process, _ = start("-k", kind, setup=setup)
    if kind == "thread":
        assert process.wait(PATIENCE) == 2
    until(lambda: "JSONDecodeError" in (tmp_path / "err").read_text(), "the error")
    text = (tmp_path / "err").read_text().partition("JSONDecodeError")[0]
    frames = [line for line in text.splitlines() if line.strip().startswith("File")]
    assert str(tmp_path / "jobs.py") in frames[0]
    assert "importlib" not in text


def test_text_of_users_forges_no_log_record(tmp_path):
    """No text of a user begins a line of the log or commands a terminal; the program's own records stay as they are."""
    (tmp_path / "app.py").write_text(
        "import logging\nfrom lifecycle import TaskQueue\nqueue = TaskQueue('sqlite:///app.db')\n"
        "EVIL = '\\x1b[2J\\x9b2J\\n2026-01-01 00:00:00,000 ERROR   lifecycle.consumer: forged'\n"
        "@queue.task(name='work')\ndef work():\n    logging.getLogger('mine').warning('\\x1b[31mred')\n"
        "    raise ValueError(EVIL)\n"
        "@queue.signal('error')\ndef broken(signal, task, exc=None):\n    raise RuntimeError(EVIL)\n"
    )
    with closing(TaskQueue(f"sqlite:///{tmp_path}/app.db")) as queue, consumer_process(tmp_path, "app") as consumer:
        queue.task(name="work")(lambda: None)()
        wait_for_log(consumer, "signal handler failed")
        wait_for_log(consumer, "RuntimeError: ")
        assert stop_process(consumer) == 0
        text = consumer.log.read_text()
    assert text.count("\x1b") == text.count("\x1b[31mred") == 1
    assert "\x9b" not in text
    assert text.count("forged") > 2
    records = [line for line in text.split("\n")[:-1] if not line.startswith("  ")]
    assert [line for line in records if "forged" in line and line.startswith("2026-01-01")] == []
    assert [line for line in records if not line[:4].isdigit()] == []
