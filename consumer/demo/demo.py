"""``lifecycle demo``: every scenario of the lifecycle, run by real consumers, each signal compared with the table."""

import contextlib
import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

import attrs
import msgspec
from rich.console import Console

from lifecycle.analysis.checker import IllegalSequence, check
from lifecycle.clock import monotonic
from lifecycle.consumer.demo import environment as environments
from lifecycle.consumer.demo.environment import DemoEnvironment
from lifecycle.consumer.demo.scenarios import SCENARIOS, Scenario
from lifecycle.consumer.demo.story import ScenarioResult, Story
from lifecycle.core.table import LIFECYCLE
from lifecycle.errors import LifecycleError
from lifecycle.result import Result

__all__ = ["SCENARIOS", "ScenarioRunner", "next_steps", "run_demo"]

QUIET_SECONDS: Final = 0.1
"""For so long after the last promised signal no other may come; at the end of the demo all are compared again."""


class ScenarioRunner:
    """Runs scenarios in an environment, and compares the signals and the stored facts with the promises."""

    def __init__(self, environment: DemoEnvironment, story: Story) -> None:
        self._environment, self._story = environment, story
        self._results: list[tuple[Result[object] | None, ScenarioResult]] = []

    def run(self, number: int, scenario: Scenario) -> None:
        """Run one scenario, and compare its signals with the promised ones, the table and the stored history."""
        environment = self._environment
        environment.faults.clear()
        environment.began_at = environment.now()
        self._story.begin(number, scenario, environment.began_at)
        result, proof, seconds = None, "", 0.0
        came: tuple[str, ...] = ()
        try:
            result = scenario.run(environment)
            timeout = environments.SIGNAL_TIMEOUT_SECONDS + environment.delay
            environment.wait_for(result.id, len(scenario.promised), timeout)
            seconds = environment.now() - environment.began_at
            if environment.signals(result.id) == scenario.promised:  # else there is nothing to prove
                proof = scenario.proof(environment, result)
            environment.wait_for(result.id, len(scenario.promised) + 1, QUIET_SECONDS)  # no other may come
            came = environment.signals(result.id)
            environment.faults += _compared(scenario, came, result)
        except LifecycleError as error:
            environment.faults.append(str(error))
        fault = "; ".join(environment.faults) or None
        self._results.append((result, _scenario_result(scenario, came, seconds, proof, fault)))
        self._story.end(self._results[-1][1])

    def results(self) -> list[ScenarioResult]:
        """Return the results of all scenarios; a signal that has come since is a fault."""
        return [self._compared_again(result, ended) for result, ended in self._results]

    def _compared_again(self, result: Result[object] | None, ended: ScenarioResult) -> ScenarioResult:
        came = ended.came if result is None else self._environment.signals(result.id)
        if ended.fault is not None or came == ended.came:
            return ended
        return attrs.evolve(ended, came=came, fault=f"later came {', '.join(came[len(ended.came) :])}")


def _scenario_result(
    scenario: Scenario, came: tuple[str, ...], seconds: float, proof: str, fault: str | None
) -> ScenarioResult:
    return ScenarioResult(
        scenario.title, scenario.name, scenario.promise, scenario.promised, came, seconds, proof, fault
    )


def _compared(scenario: Scenario, came: tuple[str, ...], result: Result[object]) -> list[str]:
    """Compare the signals that came with the promised ones, the table and the stored history; return the faults."""
    faults = []
    if came != scenario.promised:
        faults.append(f"promised: {', '.join(scenario.promised)}")
    try:
        check(came, from_start=False)
    except IllegalSequence as error:
        faults.append(str(error))
    history = tuple(LIFECYCLE.state(record.state).signal for record in result.history())
    if history != (LIFECYCLE.initial.signal, *came):
        faults.append(f"not so: the stored history is {', '.join(history)}")
    return faults


def run_demo(console: Console, *, real: bool = False, folder: Path | None = None, as_json: bool = False) -> bool:
    """Run all scenarios, print their signals, and return whether all went as promised.

    `real`: with the delays of the documentation; `folder`: keep the queue's file there; `as_json`: print the
    results as JSON.
    """
    delay, lease = (10.0, 10.0) if real else (0.5, 3.0)  # shorter, a consumer on a busy machine may seem dead
    story = Story(Console(quiet=True) if as_json else console, delay=delay, lease=lease)
    with contextlib.ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lifecycle-demo-")))
        environment = DemoEnvironment(place, delay=delay, lease=lease, observer=story)
        stack.callback(environment.close)
        started = monotonic()
        consumer = environment.start_consumer()
        if environment.wait_until_started(consumer):
            story.open(str(place / "demo.db"), consumer.pid, monotonic() - started)
        runner = ScenarioRunner(environment, story)
        for number, scenario in enumerate(SCENARIOS, 1):
            runner.run(number, scenario)
        results = runner.results()
    if as_json:
        sys.stdout.write(msgspec.json.encode([attrs.asdict(result) for result in results]).decode() + "\n")
    else:
        story.close(results, next_steps(folder, _program()))
    return all(result.fault is None for result in results)


def next_steps(folder: Path | None, program: str) -> list[tuple[str, str]]:
    """Return commands to run next, each with its purpose. `program`: the words that start the command line."""
    if folder is None:
        look = (f"{program} demo --folder .", "keep demo.db, and look at its tasks")
    else:
        url = shlex.quote(f"sqlite:///{folder / 'demo.db'}")
        look = (f"{program} list --url {url}", "look at the tasks of this demo")
    return [
        look,
        (f"{program} run tasks:queue", "your own tasks: README.md, Your first task"),
        (f"{program} --help", "all commands"),
    ]


def _program() -> str:
    """Return the words that start this program once more in the user's shell."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{shlex.quote(sys.orig_argv[0])} -m lifecycle"
    found = shutil.which(called.name)
    if found is not None and Path(found).resolve() == called.resolve():
        return called.name
    with contextlib.suppress(ValueError):
        return shlex.quote(str(called.absolute().relative_to(Path.cwd())))
    return shlex.quote(str(called))
