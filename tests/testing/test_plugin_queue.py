"""The fixture `lifecycle`: the program's own queue, which the pytest configuration names; and where tracebacks end."""

import re
import sys

import pytest
from generate.pages import DOCS

PROGRAM = """
from lifecycle import TaskQueue
queue = TaskQueue("sqlite:///never/made.db")
table = {"queue": 7}

class app:
    queue = queue

@queue.task(retries=1, retry_delay=60)
def send(to, subject="hello"):
    if subject == "bad":
        raise ValueError(subject)
    return to
"""
MODULES = {"program": PROGRAM, "broken_program": "import this_module_is_missing", "faulty_program": "\n\n1 / 0"}


@pytest.fixture
def run(pytester):
    """Return a function that runs a test module with a value of the option, and returns the result."""
    pytester.makepyfile(**MODULES)
    pytester.syspathinsert()

    def run(text, named="program:queue", *options):
        pytester.makeini(f"[pytest]\n{named and f'lifecycle_queue = {named}'}")
        pytester.makepyfile(test_program=text)
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:randomly", *options)

    yield run
    for module in MODULES:
        sys.modules.pop(module, None)


USES_IT = """
    def test_it(lifecycle):
        assert lifecycle.enqueued == []
    """


# The queue ---------------------------------------------------------------------------------------------------------


def test_fixture_is_the_programs_queue_in_memory(run):
    """The fixture gives the program's queue to each test: empty, in memory, on a clock of its own; its file is not made."""
    run(
        """
        from pathlib import Path
        import pytest
        import program

        @pytest.mark.parametrize("n", range(2))
        def test_one(lifecycle, lifecycle_clock, n):
            assert lifecycle.queue is program.queue
            assert lifecycle.clock is lifecycle_clock
            assert lifecycle.enqueued == []
            program.send("ann")
            program.send("bob", subject="bad")
            assert [task.args for task in lifecycle.enqueued] == [("ann",), ("bob",)]
            assert [task.state for task in lifecycle.drain()] == ["complete", "scheduled"]
            assert [task.state for task in lifecycle.enqueued] == ["complete", "scheduled"]

        def test_no_file():
            assert not Path("never").exists()
        """
    ).assert_outcomes(passed=3)


@pytest.mark.parametrize("named", ["program:app.queue", '"program:queue"'])
def test_queue_may_be_an_attribute_of_an_attribute(run, named):
    """The name after the colon may have dots."""
    named = named.strip('"')
    run(USES_IT, named).assert_outcomes(passed=1)


def test_travel_advances_the_clock_and_runs_nothing(run):
    """`travel` advances the clock by a duration; due tasks run with the next `drain`, which may also advance the clock."""
    run(
        """
        from datetime import timedelta
        import pytest
        import program

        def test_travel(lifecycle):
            program.send.schedule(("ann",), delay=timedelta(hours=2))
            assert lifecycle.drain() == []
            before = lifecycle.clock.now()
            lifecycle.travel(hours=1, minutes=59)
            assert lifecycle.clock.now() == before + 7140
            assert lifecycle.drain() == []
            lifecycle.travel(minutes=1)
            assert [task.state for task in lifecycle.enqueued] == ["scheduled"]
            assert [task.state for task in lifecycle.drain()] == ["complete"]

        def test_drain_until(lifecycle):
            program.send("ann", "bad")
            assert [task.attempt for task in lifecycle.drain(until=timedelta(minutes=1))] == [1, 2]
            program.send("ann")
            program.send("ann")
            with pytest.raises(AssertionError, match="drain: 1 tasks have run, and more are due"):
                lifecycle.drain(limit=1)
        """
    ).assert_outcomes(passed=2)


def test_travel_refuses_another_unit_and_the_past(run):
    """`travel` refuses a unit that there is not, no duration at all, and a duration below 0."""
    run(
        """
        import pytest

        def test_travel(lifecycle):
            with pytest.raises(TypeError, match=r"travel\\(\\) needs a duration in weeks, .*, not hour, day$"):
                lifecycle.travel(hour=1, day=2)
            with pytest.raises(TypeError, match=r"as in travel\\(hours=1\\)$"):
                lifecycle.travel()
            with pytest.raises(ValueError, match=r"travel\\(\\) cannot go back: -60 s is less than 0"):
                lifecycle.travel(minutes=-1)
        """
    ).assert_outcomes(passed=1)


def test_example_on_the_page_on_testing_passes(pytester):
    """The example on the page on testing passes, with the configuration on the page."""
    text = DOCS.joinpath("howto", "testing.md").read_text()
    option = re.search(r"^lifecycle_queue = .*$", text, re.MULTILINE)[0].replace('"', "")
    pytester.makeini(f"[pytest]\n{option}")
    program = re.search(r"^# tasks\.py\n.*?(?=^```$)", text, re.MULTILINE | re.DOTALL)[0]
    test = re.search(
        r"^from lifecycle\.testing import assert_enqueued\nfrom tasks .*?(?=^```$)", text, re.MULTILINE | re.DOTALL
    )[0]
    pytester.makepyfile(tasks=program, test_page=test)
    pytester.syspathinsert()
    sys.modules.pop("tasks", None)
    found = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    sys.modules.pop("tasks", None)
    found.assert_outcomes(passed=1)


# Wrong configurations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "text"),
    [
        ("", "the fixture lifecycle needs lifecycle_queue = *tasks:queue* in the pytest configuration*"),
        ("missing:queue", "*'missing:queue': there is no module 'missing'; *pythonpath = [[]\".\"]*"),
        ("program.tasks:queue", "*there is no module 'program.tasks'*"),
        ("broken_program:queue", "*'broken_program' cannot be imported: ModuleNotFoundError: No module named 'this_*.py:1)"),
        ("faulty_program:queue", "*'faulty_program' cannot be imported: ZeroDivisionError: division by zero (*faulty_program.py:1)"),
        ("program:tasks", "*'program:tasks': 'program' has no 'tasks'"),
        ("program:table", "*'table' is no TaskQueue but of the type 'dict'"),
        ("program:send", "*'send' is no TaskQueue but of the type 'TaskFunction'"),
    ],
)  # fmt: skip
def test_wrong_queue_is_one_line_without_a_traceback(run, named, text):
    """A queue that is not named or not found is an error of one line; tests that do not use the fixture pass."""
    found = run(f"{USES_IT}\n    def test_other(): ...", named)
    found.assert_outcomes(passed=1, errors=1)
    lines = [line for line in found.outlines if line.startswith(("E ", ">"))]
    assert lines == []
    found.stdout.no_fnmatch_line("*During handling*")
    found.stdout.no_fnmatch_line("*traceback entries*")
    found.stdout.fnmatch_lines(["*ERROR at setup of test_it*", text])


@pytest.mark.parametrize("named", ["tasks.queue", "tasks", ":queue", "tasks:", "ta sks:queue", "a:b:c"])
def test_name_of_another_form_is_refused_at_the_start(run, named):
    """A name that is not of the form ``module:name`` ends the run with one line, and exit code 4."""
    found = run("def test_other(): ...", named)
    assert found.ret == pytest.ExitCode.USAGE_ERROR
    assert found.errlines[0] == (
        f"ERROR: lifecycle_queue = {named!r} does not name a queue: write module:name, such as tasks:queue"
    )


def test_option_is_in_the_help(run):
    """``pytest --help`` explains the option."""
    found = run("", "program:queue", "--help")
    found.stdout.fnmatch_lines(["*lifecycle_queue (string):*"])


# Tracebacks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "assert_enqueued(send, to='bob')",
        "refute_enqueued(send)",
        "assert_enqueued(send, 1, 2, 3)",
        "assert_enqueued(send, scheduled_in='soon')",
        "assert_enqueued(len, 1)",
        "drain(queue, limit=0)",
        "drain(queue, until='soon')",
        "lifecycle.drain(limit=0)",
        "lifecycle.travel(hour=1)",
        "lie()",
    ],
)
def test_traceback_ends_in_the_users_line(run, line):
    """The traceback of a failed assertion, or of a wrong call, ends in the line of the test that made it."""
    found = run(
        f"""
        from lifecycle import Task
        from lifecycle.testing.assertions import assert_enqueued, refute_enqueued
        from lifecycle.testing.inline import drain
        from program import queue, send

        def test_fails(lifecycle, lifecycle_signals):
            lifecycle_signals(queue)
            lie = lambda: queue.engine.signals.send("complete", Task("t1", "send"))
            send("ann")
            {line}
        """
    )
    found.assert_outcomes(failed=1)
    shown = next(text for text in found.outlines if text.startswith(">"))
    assert shown.split(maxsplit=1)[1].strip() == line
    places = [place[1] for text in found.outlines if (place := re.match(r"(\S+\.py):\d+: ", text))]
    assert {*places} == {"test_program.py"}
