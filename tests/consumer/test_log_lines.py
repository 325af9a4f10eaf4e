"""The log of a consumer's process, set up within this process: formats, files, and the user's part of a traceback."""

import io
import json
import logging
import sys

import pytest

from lifecycle import ConfigurationError
from lifecycle.consumer.import_errors import users_traceback
from lifecycle.consumer.log_output import LogOptions

LOGGER = "lifecycle.test_log_lines"


@pytest.fixture
def output():
    """The standard error stream of a process without a handler for its log."""
    root, ours = logging.getLogger(), logging.getLogger("lifecycle")
    before = root.handlers, root.level, ours.level
    yield io.StringIO()
    root.handlers = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


def set_up(options, output, monkeypatch):
    """Set up the log as in a process that has no handler yet."""
    monkeypatch.setattr(sys, "stderr", output)
    logging.getLogger().handlers = []
    options.after_import()


def log_failure():
    try:
        raise ValueError("1\n2")
    except ValueError:
        logging.getLogger(LOGGER).warning("task error: function=%(function)s", {"function": "f"}, exc_info=True)


def test_further_lines_of_a_record_are_indented(output, monkeypatch):
    """A record begins with its time; each further line of the record is indented."""
    set_up(LogOptions(), output, monkeypatch)
    log_failure()
    first, *others = output.getvalue().splitlines()
    assert first.endswith(f"WARNING {LOGGER}: task error: function=f")
    assert len(others) >= 4
    assert all(line.startswith("  ") for line in others)


def test_record_as_json_is_one_line_with_its_values(output, monkeypatch):
    """A record as JSON is one line, with a key for each value of the record and for the traceback."""
    set_up(LogOptions(line_format="json"), output, monkeypatch)
    log_failure()
    logging.getLogger(LOGGER).warning("with a stack", stack_info=True)
    record, other = map(json.loads, output.getvalue().splitlines())
    assert (record["level"], record["logger"], record["function"]) == ("WARNING", LOGGER, "f")
    assert record["message"] == "task error: function=f"
    assert record["traceback"].startswith("Traceback")
    assert "test_log_lines" in other["stack"]


def test_lines_on_a_terminal_are_drawn(output, monkeypatch):
    """On a terminal the lines have the level and the logger once."""
    monkeypatch.setattr(output, "isatty", lambda: True)
    set_up(LogOptions(), output, monkeypatch)
    logging.getLogger(LOGGER).warning("seen")
    assert output.getvalue().count("WARNING") == output.getvalue().count(LOGGER) == 1


def test_levels_are_those_of_the_options(output, monkeypatch):
    """`level` is the level of all loggers, `verbose` shows all lines of this library."""
    set_up(LogOptions(level=logging.ERROR, verbose=True), output, monkeypatch)
    logging.getLogger("other").warning("hidden")
    logging.getLogger(LOGGER).debug("shown")
    assert [line.split(": ")[-1] for line in output.getvalue().splitlines()] == ["shown"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("log.json", '{"root": {"level": "ERROR"}}'),
        ("log.toml", 'root = {level = "ERROR"}'),
        ("log.ini", "[loggers]\nkeys=root\n[handlers]\nkeys=\n[formatters]\nkeys=\n[logger_root]\nlevel=ERROR\nhandlers=\n"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("output")
def test_file_configures_the_log(tmp_path, name, text):
    """A file of each kind configures the log, before and again after the program's modules are imported."""
    (tmp_path / name).write_text(text)
    options = LogOptions(config=tmp_path / name)
    options.before_import()
    assert logging.getLogger().level == logging.ERROR
    logging.getLogger().setLevel(logging.INFO)
    options.after_import()
    assert logging.getLogger().level == logging.ERROR


@pytest.mark.parametrize("text", ["[]", "{", '{"handlers": {"a": {"class": "no.such"}}}'])
def test_faulty_file_is_refused(tmp_path, text):
    """A file that configures nothing is refused, and the error names the file."""
    path = tmp_path / "log.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"log_config=.*log\.json"):
        LogOptions(config=path).before_import()


def test_traceback_of_an_import_begins_in_the_users_module(tmp_path, monkeypatch):
    """The traceback of a failed import has the frames of the user's modules only."""
    (tmp_path / "outer_module.py").write_text("import inner_module\n")
    (tmp_path / "inner_module.py").write_text("raise RuntimeError('no')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError) as caught:
        __import__("outer_module")
    caught.value.__traceback__ = caught.value.__traceback__.tb_next  # the frame of this test
    lines = users_traceback(caught.value)
    assert "outer_module.py" in lines[1]
    assert not any("importlib" in line for line in lines)
