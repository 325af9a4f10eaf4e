"""The demo as text, with scenarios that are replayed on a virtual clock; and the proofs, which can fail."""

import ast
import inspect
import io
import re

import attrs
import pytest
from generate.screens import play
from rich.console import Console

from lifecycle.consumer.demo.demo import ScenarioRunner
from lifecycle.consumer.demo.environment import TASKS_MODULE, RefusalHandler
from lifecycle.consumer.demo.replay import Replay
from lifecycle.consumer.demo.scenarios import SCENARIOS
from lifecycle.consumer.demo.story import Story
from lifecycle.core.table import COMPLETE, EXECUTING
from lifecycle.core.task import Record, Task
from lifecycle.result import Result

NAMES = {scenario.name for scenario in SCENARIOS}
by_scenario = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)


def told(columns, **options):
    """Return all scenarios and the table as plain text."""
    out = io.StringIO()
    play(Console(file=out, width=columns, color_system=None, **options), NAMES)
    return out.getvalue()


@pytest.fixture(scope="module")
def story():
    """The text in a wide terminal."""
    return told(120)


def block(story, scenario):
    """Return the text of one scenario."""
    return story.partition(f"  {scenario.title}\n")[2].partition("\n\n")[0]


@by_scenario
def test_scenario_is_shown_with_promise_code_attempts_and_proof(story, scenario):
    """Each scenario shows its promise, its call, its signals in order with the attempt, and the proof."""
    promise, code, *lines, proof = block(story, scenario).splitlines()
    assert promise.split(maxsplit=1) == ["promise", scenario.promise]
    assert scenario.promise.endswith(".")
    assert code.split()[0] == "code"
    assert proof.split()[:2] == ["proof", "✓"]
    signals = [line.split()[2:] for line in lines if "→" not in line and "☠" not in line and "✗" not in line]
    signals = [words for words in signals if words and words[0] in scenario.promised]
    assert tuple(words[0] for words in signals) == scenario.promised
    assert all("consumer" in words for words in signals)
    starts = [words for words in signals if words[0] == "executing"]
    assert [words[2] for words in starts] == [str(number) for number, _ in enumerate(starts, 1)]


def test_table_lists_each_scenario_with_promise_and_proof(story):
    """The table at the end lists each scenario with its promise and its proof."""
    table = story.rpartition("seconds\n")[2]
    for scenario, line in zip(SCENARIOS, table.splitlines()[1:], strict=False):
        assert re.match(rf"{scenario.name} +{re.escape(scenario.promise)} +✓ .+ \d+\.\d\d$", line)
    assert f"✓ {len(SCENARIOS)} promises kept" in table
    assert "Next:" in table


def test_refused_outcome_of_a_frozen_consumer_is_shown(story):
    """A frozen consumer wakes, reports its outcome, and is refused; the other consumer's result stays."""
    lines = block(story, SCENARIOS[-1]).splitlines()
    woken = next(number for number, line in enumerate(lines) if "kill -CONT 4713" in line)
    assert re.search("✗ refused +attempt 1  consumer 4713", lines[woken + 1])
    assert "'from attempt 2' kept" in lines[-1]


def test_lapsed_lease_of_a_killed_consumer_is_shown(story):
    """A killed consumer's pid is shown, and that its lease has lapsed."""
    (killed,) = (scenario for scenario in SCENARIOS if scenario.name == "kill -9")
    assert re.search(
        r"☠ kill -9 4711\n(?s:.*)interrupted .*the lease of consumer 4711 has lapsed", block(story, killed)
    )


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_lines_fit_the_terminal(columns):
    """No line is longer than the terminal is wide."""
    assert [line for line in told(columns).splitlines() if len(line.rstrip()) > columns] == []


def test_output_without_unicode_has_other_marks():
    """An output that has only ASCII gets marks in ASCII."""
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    play(Console(file=out, width=80, color_system=None), NAMES)
    out.flush()
    assert b"proof    + result 3" in raw.getvalue()
    assert b"x kill -9 4711" in raw.getvalue()


@by_scenario
def test_code_of_a_scenario_is_that_of_the_tasks(scenario):
    """The decorators in the code of a scenario are those of the tasks' module."""
    replay = Replay()
    replay.close()
    source = inspect.getsource(replay.tasks)
    functions = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
    call, _, about = scenario.code.format(delay="settings.delay", lease="0").partition("  # ")
    shown = re.match(r"@queue\.(\w+)\(.*?\)", about)
    assert ast.parse(call)
    name = re.search(r"(\w+)(?:\.\w+)?\(", call)[1]
    decorators = [
        re.sub(r"(, )?(context=True|name='demo\.\w+')", "", ast.unparse(mark)).replace("(, ", "(")
        for mark in functions[name].decorator_list
    ]
    hooks = [ast.unparse(mark) for node in functions.values() for mark in node.decorator_list]
    assert shown[0][1:].replace('"', "'") in [*decorators, *(hook for hook in hooks if "pre_execute" in hook)]


def test_tasks_module_is_found_by_its_name():
    """The consumers of the demo run the module whose source the scenarios show."""
    replay = Replay()
    replay.close()
    assert replay.tasks.__name__ == TASKS_MODULE


# Faults ------------------------------------------------------------------------------------------------------------


def run(scenario, proof=None):
    """Replay one scenario, with another proof if one is given; return its runner, the replay and the text."""
    out = io.StringIO()
    story = Story(Console(file=out, width=120), delay=0.5, lease=1.5)
    replay = Replay(observer=story, delay=0.5, lease=1.5)
    try:
        with replay.log():
            runner = ScenarioRunner(replay, story)
            runner.run(1, attrs.evolve(scenario, proof=proof or scenario.proof))
            return runner, replay, out.getvalue()
    finally:
        replay.close()


@by_scenario
def test_proof_fails_if_the_store_has_other_facts(scenario, monkeypatch):
    """Each proof reads the store: with another result and another history it is a fault."""

    def prove(environment, result):
        with monkeypatch.context() as patch:
            patch.setattr(Result, "get", lambda self: "another result")
            patch.setattr(Result, "history", lambda self: [Record(EXECUTING.name, 0.0, "another", 7)])
            return scenario.proof(environment, result)

    runner, _, text = run(scenario, prove)
    (result,) = runner.results()
    assert result.fault.startswith("not so: ")
    assert "fault" in text
    assert "proof" not in text


def test_refusal_that_does_not_come_is_a_fault(monkeypatch):
    """A frozen consumer whose late outcome is not refused breaks the promise."""
    monkeypatch.setattr(RefusalHandler, "emit", lambda self, record: None)
    runner, _, _ = run(SCENARIOS[-1])
    (result,) = runner.results()
    assert result.fault == "not so: the outcome of attempt 1 is refused"


def test_signal_after_the_end_of_a_scenario_is_a_fault():
    """A signal that comes when its scenario is over is a fault in the table, and in the sum."""
    runner, replay, _ = run(SCENARIOS[0])
    (before,) = runner.results()
    assert before.fault is None
    (task_id,) = {event.id for event in replay._events}
    task = Task(task_id, "add", state=COMPLETE, attempt=1)
    replay.record_signal(replay.tasks.signal_event("complete", task, None, 4711, 0.0))
    (after,) = runner.results()
    assert after.fault == "later came complete"
    out = io.StringIO()
    Story(Console(file=out, width=80), delay=0.5, lease=1.5).close([after], [("lifecycle", "anything")])
    assert "✗ later came complete" in out.getvalue()
    assert out.getvalue().endswith("✗ 1 of 1 promises broken.\n")
