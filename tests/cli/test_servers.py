"""The commands on each kind of store: what they print and change is the same."""

import json

import pytest
from conftest import SERVERS, on_server
from support.command_line import is_one_line
from support.postgres import unused_name

from lifecycle import TaskQueue

STORES = ("sqlite", *SERVERS)


@pytest.fixture(params=STORES)
def options(request, folder):
    """The options that name an empty queue on a store."""
    kind = request.param
    url = f"sqlite:///{folder}/app.db" if kind == "sqlite" else on_server(kind, request)
    return ["--url", url, "--name", unused_name()]


def test_commands_work_on_each_store(command_line, options):
    """Tasks are listed, filtered, shown, counted, retried, revoked and purged, whatever the store."""
    queue = TaskQueue(options[1], name=options[3], retention=None)
    add = queue.task(name="shop.add")(lambda a, b: a + b)
    fails = queue.task(name="shop.fails")(lambda what: [][what])
    complete, failed = add.schedule((1, 2), id="complete-größe"), fails(5)
    while queue.run_next():
        pass
    waiting = add.schedule((3, 4), delay=3600)

    def run(*arguments):
        code, out, err = command_line(*arguments, *options)
        assert (code, err) == (0, "")
        return out

    listed = json.loads(run("list", "--json"))
    assert [task["id"] for task in listed] == [waiting.id, failed.id, complete.id]
    assert [task["error"] for task in listed] == [None, "IndexError('list index out of range')", None]
    assert all(task["enqueued_at"] is not None for task in listed)
    for filters, expected in {
        ("--task", "shop.add", "--since", "1h"): [waiting.id, complete.id],
        ("--state", "error", "--text", "IndexError"): [failed.id],
        ("--since", "2001-01-01", "--worker", "caller"): [failed.id, complete.id],
    }.items():
        assert [task["id"] for task in json.loads(run("list", "--json", *filters))] == expected
    assert "shop.add(1, 2)" in run("show", "größe")
    assert "IndexError" in run("show", failed.id[-8:])
    assert "complete" in run("history", "complete-")
    assert json.loads(run("stats", "--json"))["error"] == 1
    assert run("retry", "--state", "error", "--yes") == "1 task is queued again\n"
    assert failed.state == "queued"
    assert run("revoke", "--task", "shop.fails", "--yes") == "1 task will not run again\n"
    assert run("cancel", waiting.id[-10:]).startswith(f"task {waiting.id} ")
    while queue.run_next():
        pass
    assert (failed.state, waiting.state) == ("revoked", "revoked")
    assert json.loads(run("workers", "--json")) == []
    assert run("purge", "--older-than", "0s", "--yes") == "3 tasks deleted\n"
    queue.close()


@pytest.mark.parametrize("command", ["list", "stats", "workers", "show 1", "retry 1", "retry --state error"])
@pytest.mark.parametrize("target", ["private", "--url=memory://"])
def test_queue_in_memory_is_refused(command_line, folder, command, target):
    """A queue in memory is one line and exit code 2: no other process sees its tasks."""
    (folder / "private.py").write_text("from lifecycle import TaskQueue\nqueue = TaskQueue('memory://')\n")
    code, out, err = command_line(*command.split(), target)
    assert (code, out) == (2, "")
    assert is_one_line(err, "memory", "private" if target == "private" else "memory://")
