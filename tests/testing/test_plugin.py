"""The pytest plugin, in a pytest run of its own."""

import subprocess
import sys

import pytest

PROGRAM = """
from lifecycle import TaskQueue
queue = TaskQueue("sqlite:///never/made.db")

@queue.task()
def add(a, b=1):
    return a + b
"""

LAWLESS = """
import threading
from lifecycle import Task

def lie(queue, signal, task_id):
    queue.engine.signals.send(signal, Task(task_id, "add"))
"""


@pytest.fixture
def project(pytester):
    """A program, and a folder for its tests."""
    pytester.makepyfile(app=PROGRAM, lawless=LAWLESS)
    pytester.syspathinsert()
    yield pytester
    for module in "app", "lawless":
        sys.modules.pop(module, None)


@pytest.fixture
def run(project):
    """Return a function that runs a test module of that program with the plugin, and returns the result."""

    def run(text, *options):
        project.makepyfile(test_app=text)
        return project.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:randomly", *options)

    return run


# Fixtures ----------------------------------------------------------------------------------------------------------


def test_pytest_lists_the_fixtures(project):
    """``pytest --fixtures`` lists the fixtures with their descriptions."""
    found = project.runpytest_subprocess("--fixtures", "-p", "no:cacheprovider")
    found.stdout.fnmatch_lines(
        [
            "lifecycle_clock*",
            "    A clock that stands still*",
            "lifecycle_queue*",
            "    An empty queue in memory*",
            "lifecycle_signals*",
        ]
    )


def test_each_test_has_a_queue_of_its_own(run):
    """Each test has an empty queue in memory, on its own virtual clock, closed after the test."""
    run(
        """
        import pytest
        from lifecycle import StorageError
        before = []

        @pytest.mark.parametrize("n", range(3))
        def test_scheduled(lifecycle_queue, lifecycle_clock, n):
            add = lifecycle_queue.task(name="add")(lambda a, b: a + b)
            assert sum(lifecycle_queue.counts().values()) == 0
            result = add.schedule((1, 2), delay=60)
            assert lifecycle_queue.run_next() is None
            lifecycle_clock.advance(60)
            assert lifecycle_queue.run_next().id == result.id
            assert result.get() == 3
            before.append(lifecycle_queue)

        def test_closed():
            for queue in before:
                with pytest.raises(StorageError, match="closed"):
                    queue.counts()
        """
    ).assert_outcomes(passed=4)


def test_plugin_changes_nothing_when_unused(run):
    """A suite that does not use the plugin passes and fails as without it, and may define fixtures of the same names."""
    text = """
        import pytest

        @pytest.fixture
        def lifecycle_clock():
            return "mine"

        def test_passes(lifecycle_clock):
            assert lifecycle_clock == "mine"

        def test_fails():
            assert 1 == 2

        def test_fails_on_its_own_word():
            pytest.fail("as it wishes")

        def test_is_skipped():
            pytest.skip()
        """
    for options in (), ("-p", "no:lifecycle"):
        found = run(text, *options)
        found.assert_outcomes(passed=1, failed=2, skipped=1)
        found.stdout.fnmatch_lines(["E*assert 1 == 2", "E*Failed: as it wishes"])


def test_plugin_can_be_disabled(run):
    """With ``-p no:lifecycle`` there are no such fixtures; the other tools still work."""
    text = """
        from lifecycle.testing.inline import drain
        def test_queue(lifecycle_queue): ...
        def test_other(): assert drain
        """
    found = run(text, "-p", "no:lifecycle")
    found.assert_outcomes(passed=1, errors=1)
    found.stdout.fnmatch_lines(["*fixture 'lifecycle_queue' not found"])


def test_plugin_imports_no_consumer_and_no_hypothesis():
    """The plugin, which every pytest run imports, imports no consumer, no command line and no Hypothesis."""
    code = "import lifecycle.testing.plugin, sys; print(*sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"lifecycle.testing.plugin", "lifecycle.queue"} <= {*modules}
    heavy = ("hypothesis", "consumer", "click", "rich", "lifecycle.diagrams")
    assert [name for name in heavy if name in modules] == []


# Signals -----------------------------------------------------------------------------------------------------------


def test_signals_are_recorded_in_order(run):
    """Recorded signals are a list of signals and task ids, in order; `of` returns the signals of one task."""
    run(
        """
        def test_signals(lifecycle_queue, lifecycle_signals):
            double = lifecycle_queue.task(name="double")(lambda n: 2 * n)
            double(0)
            signals = lifecycle_signals(lifecycle_queue)
            assert signals == []
            one, two = double(1), double(2)
            while lifecycle_queue.run_next(): pass
            assert signals[:2] == [("enqueued", one.id), ("enqueued", two.id)]
            assert len(signals) == 8  # of what was enqueued before, too, what comes now
            assert signals.of(one) == signals.of(one.task) == signals.of(one.id) == ["enqueued", "executing", "complete"]
            assert signals.of("nobody") == []
        """
    ).assert_outcomes(passed=1)


def test_recording_starts_from_the_stored_states(run):
    """The signals of a stored task are checked from its current state on."""
    found = run(
        """
        import pytest
        from lawless import lie

        @pytest.fixture
        def task(lifecycle_queue):
            @lifecycle_queue.task(retries=1, name="fail")
            def fail(): raise OSError
            result = fail()
            lifecycle_queue.run_next()
            return result

        def test_legal(lifecycle_queue, lifecycle_signals, task):
            signals = lifecycle_signals(lifecycle_queue)
            lifecycle_queue.run_next()
            assert signals.of(task) == ["executing", "error"]

        def test_illegal(lifecycle_queue, lifecycle_signals, task):
            lifecycle_signals(lifecycle_queue)
            lie(lifecycle_queue, "complete", task.id)
        """
    )
    found.assert_outcomes(passed=1, failed=1)
    found.stdout.fnmatch_lines(["E*Failed: *signal 6 is 'complete' after 'enqueued'; legal: *"])


def test_illegal_signal_fails_the_test_at_once(run):
    """An illegal signal in the test's thread fails the test at that line, with the task's id and the position."""
    found = run(
        """
        from lawless import lie

        def test_lie(lifecycle_queue, lifecycle_signals):
            lifecycle_signals(lifecycle_queue)
            lie(lifecycle_queue, "enqueued", "t1")
            lie(lifecycle_queue, "complete", "t1")
            print("it goes on")
        """
    )
    found.assert_outcomes(failed=1)
    found.stdout.fnmatch_lines(
        [
            '>*lie(lifecycle_queue, "complete", "t1")',
            "E*Failed: illegal sequence of signals: task t1: signal 2 is 'complete' after 'enqueued'; legal: *executing*",
        ]
    )
    found.stdout.no_fnmatch_line("*it goes on")


@pytest.mark.parametrize(
    "how",
    [
        "threading.Thread(target=lie, args=(queue, 'complete', 't1')); thread.start(); thread.join()",
        "None; queue.task(name='liar')(lambda: lie(queue, 'complete', 't1'))(); queue.run_next()",
    ],
    ids=["thread", "body"],
)
def test_illegal_signal_in_a_thread_or_function_fails_the_test_at_its_end(run, how):
    """An illegal signal from another thread, or from a task's function, fails the test at its end."""
    found = run(
        f"""
        import threading
        from lawless import lie

        def test_lie(lifecycle_queue, lifecycle_signals):
            queue = lifecycle_queue
            signals = lifecycle_signals(queue)
            thread = {how}
            assert ("complete", "t1") in signals
            assert "error" not in dict(signals)
            print("it goes on")
        """,
        "-rA",
    )
    found.assert_outcomes(failed=1)
    found.stdout.fnmatch_lines(
        ["*illegal sequence*task t1: signal 1 is 'complete' as the first; legal: enqueued, pending"]
    )
    found.stdout.fnmatch_lines(["it goes on"])


def test_illegal_signal_in_a_teardown_is_an_error(run):
    """An illegal signal during a teardown is an error of the teardown; a failed test keeps its own failure."""
    found = run(
        """
        import pytest, threading
        from lawless import lie

        @pytest.fixture
        def late(lifecycle_queue, lifecycle_signals):
            lifecycle_signals(lifecycle_queue)
            yield
            thread = threading.Thread(target=lie, args=(lifecycle_queue, "complete", "t1"))
            thread.start()
            thread.join()

        def test_passes(late): ...
        def test_fails(late): assert 1 == 2
        """
    )
    found.assert_outcomes(passed=1, failed=1, errors=2)
    found.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_passes*",
            "illegal sequence*task t1: signal 1 is 'complete' as the first*",
            "E*1 == 2",
        ]
    )


def test_recording_ends_with_the_test(run):
    """After the test the queue has no handler of the recording."""
    run(
        """
        from app import add, queue
        from lawless import lie
        from lifecycle.testing.inline import testing_mode

        def test_records(lifecycle_signals):
            with testing_mode(queue):
                signals = lifecycle_signals(queue)
                add(1)
                assert len(signals) == 1

        def test_is_over():
            assert queue.engine.signals.connected == {}
            lie(queue, "complete", "t1")
        """
    ).assert_outcomes(passed=2)


# A program's own queue ---------------------------------------------------------------------------------------------


def test_programs_own_queue_works_in_memory(run, tmp_path):
    """A program's own queue works in memory for a test; its file is not created."""
    run(
        """
        from datetime import timedelta
        from pathlib import Path
        import pytest
        import app
        from lifecycle.testing.assertions import assert_enqueued, refute_enqueued
        from lifecycle.testing.inline import drain, testing_mode

        @pytest.fixture(autouse=True)
        def in_memory(lifecycle_clock):
            with testing_mode(app.queue, lifecycle_clock):
                yield

        def test_enqueues():
            result = app.add.schedule((1,), delay=3600)
            assert assert_enqueued(app.add, 1, b=1).id == result.id
            assert [task.id for task in drain(app.queue, until=timedelta(hours=1))] == [result.id]
            assert result.get() == 2

        def test_is_clean():
            refute_enqueued(app.add, ...)

        def test_no_file():
            assert not Path("never").exists()
        """
    ).assert_outcomes(passed=3)


def test_failed_assertion_points_at_the_line_of_the_test(run):
    """A failed `assert_enqueued` points at the line of the test, and lists the function's tasks."""
    found = run(
        """
        import app
        from lifecycle.testing.assertions import assert_enqueued
        from lifecycle.testing.inline import testing_mode

        def test_enqueues():
            with testing_mode(app.queue):
                app.add(1, 3)
                assert_enqueued(app.add, 2)
        """
    )
    found.assert_outcomes(failed=1)
    found.stdout.fnmatch_lines(
        [
            ">*assert_enqueued(app.add, 2)",
            "E*AssertionError: no task app.add(2) was enqueued; tasks of that function:",
            "E*  app.add(1, 3): queued, task *",
            "test_app.py:8: AssertionError",
        ]
    )
