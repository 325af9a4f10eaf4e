"""An operator at night: a failing task is found, understood and run again in three commands."""

import re

import pytest

from lifecycle import TaskQueue

ANSI = re.compile(r"\x1b\[[0-9;]*m")
SHOP = """
from lifecycle import TaskQueue
queue = TaskQueue({url!r})
@queue.task(retries=1)
def send_invoice(number, *, to):
    raise ConnectionRefusedError(f"no mail server for {{to}}")
@queue.task()
def add(a, b):
    return a + b
"""


@pytest.fixture
def shop(folder):
    """A queue with hundreds of complete tasks, and one that has failed for good; the module of its functions is `shop`."""
    url = f"sqlite:///{folder}/shop.db"
    (folder / "shop.py").write_text(SHOP.format(url=url))
    queue = TaskQueue(url)
    add = queue.task(name="shop.add")(lambda a, b: a + b)

    @queue.task(name="shop.send_invoice", retries=1)
    def send_invoice(number, *, to):
        raise ConnectionRefusedError(f"no mail server for {to}")

    queue.enqueue_many([add.s(number, 0) for number in range(200)])
    queue.failed = send_invoice(4711, to="ann@example.org")
    queue.enqueue_many([add.s(number, 1) for number in range(200)])
    while queue.run_next():
        pass
    yield queue
    queue.close()


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_failing_task_is_found_understood_and_retried_in_three_commands(command_line, shop, terminal, columns):
    """`list --state error` finds the task, `show` says which call failed, how and where, and `retry` runs it again."""
    terminal(columns)
    code, out, err = command_line("list", "shop", "--state", "error")
    assert (code, err) == (0, "")
    (found,) = ANSI.sub("", out).splitlines()[1:]
    short_id, name = found.split()[:2]
    assert "shop.send_invoice".endswith(name.removeprefix("…"))
    assert "ConnectionRefused" in found

    code, out, err = command_line("show", short_id, "shop")
    assert (code, err) == (0, "")
    shown = ANSI.sub("", out)
    for part in (
        shop.failed.id,
        "shop.send_invoice(4711, to='ann@example.org')",  # the call
        "ConnectionRefusedError('no mail server for ann@example.org')",  # its last error
        "2, 0 retries left",  # all attempts
        "(attempt 2)",  # how long the last one took
        'raise ConnectionRefusedError(f"no mail server for {to}")',  # the line that failed
        "test_operator.py",
    ):
        assert part in shown
    history = "queued executing error retrying queued executing error"
    assert [line.split()[0] for line in shown.splitlines()[-7:]] == history.split()

    code, out, err = command_line("retry", short_id, "shop")
    assert (code, err) == (0, "")
    assert shop.failed.id in out
    assert shop.failed.state == "queued"
