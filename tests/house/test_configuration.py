"""The page of all configuration has each option of the code, with its default, and no other."""

import inspect
import re
from pathlib import Path
from unittest.mock import Mock
from urllib.parse import urlsplit

import click
import pytest
from generate.pages import DOCS, ROOT

from lifecycle import ConfigurationError, Consumer, TaskQueue
from lifecycle.consumer.cli.main import commands
from lifecycle.function import TaskFunction
from lifecycle.queue import URL_VARIABLE
from lifecycle.storage import SCHEMES, _sqlite
from lifecycle.storage.postgres import url as postgres_url
from lifecycle.storage.redis import url as redis_url
from lifecycle.testing import plugin

PAGE = DOCS / "reference" / "configuration.md"
ROW = re.compile(r"^\| `(\w+)` \| (`.+?`) \| (?:(`[^`]*`) )?\| (.*)\|$", re.MULTILINE)
"""A row: where the option is set, its names, its default, its meaning."""


def rows():
    """Return the options on the page: for each place the names of an option, each with the option's default."""
    found = {}
    for where, names, default, _ in ROW.findall(PAGE.read_text().split("| where | option |")[1]):
        for name in re.findall("`(.+?)`", names):
            assert name not in found.setdefault(where, {}), f"{where} has {name} twice"
            found[where][name] = default.strip("`") or None
    return found


def parameters(method, *without):
    """Return the options that a method takes, each with its default as Python shows it."""
    named = inspect.signature(method).parameters.values()
    return {one.name: repr(one.default) for one in named if one.name not in ("self", *without)}


def test_options_of_queues_tasks_and_calls_are_on_the_page():
    """The page has each option of a queue, of a task function and of a single call, with its default."""
    page = rows()
    assert page["queue"] == parameters(TaskQueue.__init__)
    assert page["task"] == parameters(TaskQueue.task)
    assert page["call"] == parameters(TaskFunction.schedule, "args", "kwargs")


def test_context_task_takes_the_options_of_task():
    """`context_task` takes the options of `task` with the same defaults, without `context`."""
    expected = parameters(TaskQueue.task)
    del expected["context"]
    assert parameters(TaskQueue.context_task, "obj", "as_argument") == expected


def test_options_of_consumers_are_on_the_page():
    """The page has each option of `Consumer` and of `lifecycle run`, with its default, and those of both in one row."""
    page = rows()["consumer"]
    expected = parameters(Consumer.__init__, "queue")
    run = commands.get_command(click.Context(commands), "run")
    flags = {name for one in run.params for name in one.opts if name.startswith("-")}
    assert {name for name in page if not name.startswith("-")} == set(expected)
    assert {name for name in page if name.startswith("-")} == flags
    assert {name: page[name] for name in expected} == expected
    for line in ROW.findall(PAGE.read_text()):
        names = re.findall("`(.+?)`", line[1])
        if line[0] == "consumer" and len(names) > 1 and not names[0].startswith("-"):
            flag = next(one for one in run.params if names[-1] in one.opts)
            default = flag.default if isinstance(flag.default, int | float | str) else None
            assert repr(default) == line[2].strip("`"), names


@pytest.mark.parametrize("scheme", ["sqlite", "postgresql", "redis"])
def test_options_of_urls_are_on_the_page(scheme):
    """The page has each option that a store's URL takes: those that the refusal of another option lists."""
    with pytest.raises(ConfigurationError) as refused:
        SCHEMES[scheme](urlsplit(f"{scheme}://{'/app.db' if scheme == 'sqlite' else 'host/0'}"), "q", {"nope": "1"})
    listed = str(refused.value).split("there are ")[1].partition(", and those of")[0]
    names = set(re.findall(r"\w+", listed)) - {"and", "with", "rediss"}
    assert names == set(rows()[scheme])


def test_defaults_of_urls_are_on_the_page():
    """The page has the defaults of the options of URLs."""
    page = rows()
    assert page["sqlite"] == dict(re.findall(r'options\.pop\("(\w+)", "(\w+)"\)', inspect.getsource(_sqlite)))
    assert page["postgresql"]["schema"] == postgres_url.DEFAULT_SCHEMA
    assert page["postgresql"]["pool_size"] == str(postgres_url.DEFAULT_POOL_SIZE)
    assert page["postgresql"]["migrate"] == "yes"
    assert page["redis"]["prefix"] == redis_url.DEFAULT_PREFIX
    assert float(page["redis"]["timeout"]) == redis_url.DEFAULT_TIMEOUT_SECONDS
    assert float(page["redis"]["patience"]) == redis_url.DEFAULT_PATIENCE_SECONDS


def test_variables_of_the_environment_are_on_the_page():
    """The page has each variable that the library reads, those of its own processes and of its shell completion aside."""
    assert set(rows()["environment"]) == {URL_VARIABLE}
    reads = re.compile(r"os\.environ(?:\.get\(|\[)(\w+)|os\.getenv\((\w+)")
    sources = [path for folder in ("lifecycle", "consumer") for path in Path(ROOT, folder).rglob("*.py")]
    found = {a or b for path in sources for a, b in reads.findall(path.read_text())}
    assert {name for name in found if not name.startswith("_")} == {"URL_VARIABLE", "COMPLETION_VARIABLE"}


def test_loggers_are_on_the_page_of_logging():
    """The page of logging has each logger of the library, and no other."""
    sources = [path for folder in ("lifecycle", "consumer") for path in Path(ROOT, folder).rglob("*.py")]
    used = {name for path in sources for name in re.findall(r'getLogger\("(lifecycle[.\w]*)"\)', path.read_text())}
    text = (DOCS / "reference" / "logging.md").read_text().partition("## ")[0]
    assert set(re.findall(r"`(lifecycle[.\w]*)`", text)) == used


def test_options_of_the_pytest_plugin_are_on_the_page():
    """The page has each option that the plugin adds to pytest."""
    parser = Mock()
    plugin.pytest_addoption(parser)
    added = {arguments[0] for name, arguments, _ in parser.mock_calls if name in ("addini", "addoption")}
    assert set(rows()["pytest"]) == {"-p no:lifecycle", *added}
