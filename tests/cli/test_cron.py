"""`lifecycle cron`: periodic tasks listed, run, paused and resumed."""

import json

import pytest
from support.command_line import is_one_line

from lifecycle import TaskQueue, crontab

PROGRAM = """
from lifecycle import TaskQueue, crontab
queue = TaskQueue({url!r})
@queue.periodic_task(crontab(minute="*/5"))
def tick():
    return "tock"
@queue.periodic("0 3 * * *", tz="Europe/Berlin", misfire="run_once")
def nightly():
    pass
"""


@pytest.fixture
def program(folder):
    """Module `shop` with two periodic tasks, one of which the store knows, with a task of its latest tick."""
    url = f"sqlite:///{folder}/shop.db"
    (folder / "shop.py").write_text(PROGRAM.format(url=url))
    queue = TaskQueue(url)
    queue.periodic_task(crontab(minute="*"), name="shop.tick")(lambda: "tock")
    now = queue.engine.clock.now()
    queue.enqueue_periodic(now - 60)
    (result,) = queue.enqueue_periodic(now)
    queue.run_next()
    yield result
    queue.close()


def test_periodic_tasks_are_listed(command_line, program):
    """Each periodic task has a line: its rule, its next tick, the treatment of missed ticks, and its latest task."""
    code, out, err = command_line("cron", "shop")
    assert (code, err) == (0, "")
    head, nightly, tick = out.splitlines()
    assert head.split() == ["name", "schedule", "next", "at", "missed", "ticked", "last", "id"]
    assert nightly.startswith("shop.nightly  0 3 * * * Europe/Berlin  in ")
    assert nightly.split()[-4:] == ["run_once", "-", "-", "-"]
    assert tick.startswith("shop.tick     */5 * * * *              in ")
    assert tick.split()[-2:] == ["complete", program.id]


def test_list_as_json_has_all_fields(command_line, program):
    """With `--json` each periodic task is an object; without the program the store's part is known."""
    nightly, tick = json.loads(command_line("cron", "shop", "--json")[1])
    assert (nightly["name"], nightly["ticked"], nightly["last_state"]) == ("shop.nightly", None, None)
    assert (tick["misfire"], tick["last_task"], tick["last_state"]) == ("skip", program.id, "complete")
    (stored,) = json.loads(command_line("cron", "--url", "sqlite:///shop.db", "--json")[1])
    assert (stored["name"], stored["schedule"], stored["last_task"]) == ("shop.tick", None, program.id)


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_list_fits_a_terminal(command_line, program, terminal, columns):
    """On a terminal no line is longer than the terminal, and the name and the next tick are there."""
    terminal(columns)
    code, out, err = command_line("cron", "shop")
    assert (code, err) == (0, "")
    assert "nightly" in out
    assert "in " in out


def test_overdue_tick_is_shown(command_line, folder):
    """A tick that no consumer has made is shown as overdue."""
    url = f"sqlite:///{folder}/shop.db"
    (folder / "shop.py").write_text(PROGRAM.format(url=url).replace("run_once", "run_all"))
    queue = TaskQueue(url)
    queue.periodic("0 3 * * *", name="shop.nightly")(lambda: None)
    queue.enqueue_periodic(queue.engine.clock.now() - 3 * 86_400)
    queue.close()
    assert "overdue 2d" in command_line("cron", "shop")[1] or "overdue 3d" in command_line("cron", "shop")[1]


def test_run_enqueues_the_task_now(command_line, program):
    """`cron run` enqueues the task of a periodic task, given by its name or the end of its name."""
    code, out, err = command_line("cron", "run", "nightly", "shop")
    assert (code, err) == (0, "")
    assert out.endswith(" is queued: shop.nightly\n")
    answer = json.loads(command_line("cron", "run", "shop.tick", "shop", "--json")[1])
    assert answer["state"] == "queued"


def test_pause_and_resume_hold_for_all_consumers(command_line, program):
    """`cron pause` and `cron resume` change the store, and say so, also if nothing changes."""
    assert command_line("cron", "pause", "tick", "shop") == (0, "shop.tick is paused\n", "")
    assert command_line("cron", "pause", "tick", "shop") == (0, "shop.tick is paused already\n", "")
    assert "paused" in command_line("cron", "shop")[1]
    assert command_line("cron", "resume", "tick", "--url", "sqlite:///shop.db") == (0, "shop.tick is not paused\n", "")
    answer = json.loads(command_line("cron", "resume", "tick", "shop", "--json")[1])
    assert answer == {"name": "shop.tick", "changed": False, "paused": False}


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("run", "never", "shop"), ["'never'", "shop.nightly", "shop.tick"]),
        (("run",), ["write cron [run|pause|resume NAME] [MODULE:QUEUE]"]),
        (("shop", "extra"), ["write cron"]),
        (("run", "tick", "--url", "sqlite:///shop.db"), ["no periodic task is declared as 'shop.tick' here"]),
        (("pause", "never", "--url", "sqlite:///shop.db"), ["'never'"]),
    ],
)
def test_wrong_names_and_words_are_one_line(command_line, program, arguments, parts):
    """A name that no periodic task has, and words that are no command, end with one line and exit code 2."""
    code, out, err = command_line("cron", *arguments)
    assert (code, out) == (2, "")
    assert is_one_line(err, *parts)
