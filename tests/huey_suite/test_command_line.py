"""The command line and worker processes, with a queue that has Huey's names."""

import asyncio
import sys

import pytest
from support.command_line import is_one_line, process

from lifecycle.consumer.loading import load_queue
from lifecycle.consumer.workers.process_main import find_queue
from lifecycle.huey.contrib.asyncio import aget_result, aget_result_group

PROGRAM = """
from lifecycle.huey import SqliteHuey

huey = SqliteHuey("app", filename={filename!r})


@huey.task(context=True, owner="ann")
def add(a, b, task=None):
    return [a + b, task.owner]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder with a program of Huey's names, which can be imported from there."""
    (tmp_path / "hueytasks.py").write_text(PROGRAM.format(filename=str(tmp_path / "app.db")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    if module := sys.modules.pop("hueytasks", None):
        module.huey.close()


def test_commands_take_the_queue_behind_a_huey(folder):
    """`module:huey` names the queue, and `module:function` the function, for all commands."""
    code, out, _ = process("call", "hueytasks:add", "1", "2", cwd=folder)
    assert (code, "queued: hueytasks.add(1, 2)" in out) == (0, True)
    assert "hueytasks.add" in process("list", "hueytasks:huey", cwd=folder)[1]
    for target in ("hueytasks", "hueytasks.huey"):
        code, _, error = process("run", target, cwd=folder)
        assert code == 2
        assert is_one_line(error, "did you mean", "huey?")


def test_processes_find_the_queue_behind_a_huey(folder):
    """A worker process that is spawned imports the queue by the name of the variable that holds the `Huey`."""
    queue = load_queue("hueytasks:huey")
    source = find_queue(queue)
    assert (source.module, source.name, source.load()) == ("hueytasks", "huey", queue)


async def both(results):
    """Await a result, and a group."""
    return await aget_result(next(iter(results)), timeout=30), await aget_result_group(results)


def test_worker_processes_run_the_tasks_of_a_huey(folder):
    """Worker processes run the tasks of a `Huey`; a caller in an event loop awaits the results."""
    load_queue("hueytasks:huey")
    module = sys.modules["hueytasks"]
    results = module.add.map([(1, 2), (3, 4)])
    consumer = module.huey.create_consumer(workers=2, worker_type="process")
    consumer.start()
    try:
        assert asyncio.run(both(results)) == ([3, "ann"], [[3, "ann"], [7, "ann"]])
    finally:
        consumer.stop(graceful=True)
