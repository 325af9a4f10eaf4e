"""The simulated world: no seed has a violation, and every bug that is put in is found by one of the seeds."""

from contextlib import closing
from copy import copy

import attrs
import pytest
from support.profiles import examples

from lifecycle import LIFECYCLE, TaskQueue
from lifecycle.core.policies import Move
from lifecycle.core.task import Task
from lifecycle.execution import runner, ticks
from lifecycle.execution.engine import Engine
from lifecycle.execution.signals import Signals
from lifecycle.execution.worker import Worker
from lifecycle.storage import MemoryStorage, SQLiteStorage, memory, memory_rows
from lifecycle.storage.base import Claim
from lifecycle.storage.memory_rows import MemoryRows
from lifecycle.testing import Violation, World, simulate
from lifecycle.testing.simulation.random_run import main

SEEDS = 60
"""How many a bug may hide from."""


@pytest.mark.untraced
@pytest.mark.parametrize("first", range(0, 100, 25))
def test_worlds_have_no_violation(first):
    """No promise to 50 tasks on 4 workers is broken, in any world."""
    for seed in range(first, first + examples(25)):
        simulate(seed)


@pytest.mark.untraced
def test_worlds_reach_every_transition_and_every_event():
    """The worlds take every transition of the table, and every event happens."""
    taken, happened = set(), set()
    for seed in range(100, 160):
        run = simulate(seed, workers=3, tasks=20)
        taken |= set(run.transition_counts)
        happened |= set(run.events)
    assert {(row.source and row.source.name, row.target.name) for row in LIFECYCLE.transitions} <= taken
    assert {
        "pass_time",
        "crash",
        "freeze",
        "oversleep",
        "wake",
        "stop_heartbeats",
        "step_back",
        "revoke",
        "cancel",
        "restore",
        "retry",
    } <= happened


def test_worlds_without_crashes_announce_and_run_everything():
    """In a world without crashes every signal is received, and every attempt runs."""
    for seed in range(20):
        assert simulate(seed, crashes=False).tasks == 50


def test_seed_gives_the_same_run_on_every_store(tmp_path):
    """A seed always gives the same run, and the same on another store."""
    runs = [simulate(7, tasks=30), simulate(7, tasks=30)]
    with closing(SQLiteStorage(str(tmp_path / "q.db"), synchronous="off")) as storage:
        runs.append(simulate(7, tasks=30, storage=storage))
    assert runs[0] == runs[1] == runs[2]
    assert runs[0] != simulate(8, tasks=30)


# Bugs ----------------------------------------------------------------------------------------------------------------


def early(original):
    """Outcomes are announced before they are stored."""

    def settle(self, done, go_on, now):
        for (task, move), error in done:
            self.engine.announce(copy(task), move, self.engine.monotonic(), error)
        original(self, done, go_on, now)

    return settle


def unheld(original):
    """Released tasks are lost."""

    def let_go(self, row, now):
        row.task.lease = None
        self._held.pop(row.task.id, None)

    return let_go


def impatient(original):
    """Leases lapse too early."""
    return lambda self, now, actor, **options: original(self, now + 1000, actor, **options)


def generous(original):
    """A claimed task is given to the next worker, too."""
    given = []

    def exchange(self, done, claimant):
        took, claims = original(self, done, claimant)
        again = [Claim(copy(task), move) for task, move in given] if claims else []
        given[:] = [Claim(copy(task), move) for task, move in claims]
        return took, claims + again

    return exchange


def uncounted(original):
    """The attempts of a task have all the same number."""

    def apply(self, task):
        original(self, task)
        task.attempt = min(task.attempt, 1)

    return apply


def deaf(original):
    """One signal is not sent."""

    def send(self, signal, task, exc=None):
        if signal != "complete" or task.attempt != 2:
            original(self, signal, task, exc)

    return send


def blind(original):
    """A tick of a process that was frozen is accepted."""

    def tick(self, tick, tasks, now, actor):
        state = self._periodic.states.get(tick.name)
        return original(self, tick if state is None else tick._replace(before=state.ticked), tasks, now, actor)

    return tick


def doubled(original):
    """Ticks are made twice."""

    def due_ticks(*arguments):
        made, until = original(*arguments)
        return made * 2, until

    return due_ticks


def forgetful(original):
    """The first of many ends decides, as if a task waited for one other."""

    def hear(self, report):
        if report.completed and report.dependent in self.awaits:
            self.awaits[report.dependent] = 1
        return original(self, report)

    return hear


def repeating(original):
    """An end is counted twice, as after a lost answer."""

    def hear(self, report):
        first = original(self, report)
        return original(self, report) or first

    return hear


BUGS = {
    "a fence that does not look at the version": (
        Task, "fence", lambda original: property(lambda self: (self.id, self.state)),
    ),
    "announced before it is stored": (Worker, "_settle", early),
    "what is released is lost": (MemoryStorage, "_unhold", unheld),
    "recovered while its worker is alive": (MemoryStorage, "recover", impatient),
    "given to two workers": (MemoryStorage, "exchange", generous),
    "not held until it is announced": (Engine, "hold_until", lambda original: lambda self, state, path, now: None),
    "what was taken over is announced": (Engine, "_lost_lease", lambda original: lambda self, *held: False),
    "attempts are not counted": (Move, "apply", uncounted),
    "a signal that is not sent": (Signals, "send", deaf),
    "a tick is accepted from a frozen process": (MemoryStorage, "tick", blind),
    "each tick is made twice": (ticks, "due_ticks", doubled),
    "the first end decides": (MemoryRows, "hear", forgetful),
    "an end counts twice": (MemoryRows, "hear", repeating),
    "no end is reported": (MemoryStorage, "_report", lambda original: lambda self, task, move: None),
    "error callbacks are skipped": (
        memory_rows, "decided",
        lambda original: lambda step, report: original(attrs.evolve(step, on_failure=False), report),
    ),
    "a skipped task is a cause": (
        memory, "reports",
        lambda original: lambda task_id, step, *end: (
            original(task_id, None if step is None else attrs.evolve(step, verdict=None), *end)
        ),
    ),
    "one history line for a whole path": (
        Move, "history", lambda original: property(lambda self: original.fget(self).splitlines(keepends=True)[-1]),
    ),
}  # fmt: skip


@pytest.mark.untraced
@pytest.mark.parametrize("bug", BUGS)
def test_bug_is_found(monkeypatch, bug):
    """A bug that is put in on purpose is found by one of the first seeds, and the violation names it."""
    owner, name, broken = BUGS[bug]
    monkeypatch.setattr(owner, name, broken(getattr(owner, name)))
    with pytest.raises(Violation, match=r"^seed "):
        for seed in range(SEEDS):
            simulate(seed, crashes=seed % 2 == 0)


# A world moved by hand -----------------------------------------------------------------------------------------------


def test_frozen_worker_resumes_after_another_has_run_its_task():
    """A test may drive a world by hand: a worker freezes, another runs its task, and the first runs it again when it resumes."""
    queue = TaskQueue("memory://", lease=30)
    ran = []
    add = queue.task(name="add")(lambda a, b: ran.append(a + b))
    with World(queue) as world:
        first = world.add_worker("first")
        add(1, 2)
        while not world.auditor.signals or "executing" not in next(iter(world.auditor.signals.values())):
            first.step()
        world.freeze(first)
        world.advance(31)
        queue.engine.recover()
        world.add_worker("second").step(100)
        assert ran == [3]
        world.freeze(first, frozen=False)
        first.step(100)
        world.finish()
        world.audit()
        (signals,) = world.auditor.signals.values()
    assert signals == ["enqueued", "executing", "interrupted", "enqueued", "executing", "complete"]
    assert ran == [3, 3], "what was frozen before its body runs it when it wakes up: at least once"


@pytest.mark.parametrize("heeded", [True, False])
def test_attempt_after_a_requested_cancellation_is_a_fault(monkeypatch, heeded):
    """A canceled task begins no further attempt; a worker that ignores the request breaks a promise."""
    prepare = runner.prepare

    def deaf(engine, task):
        task.canceling = False
        return prepare(engine, task)

    if not heeded:
        monkeypatch.setattr(runner, "prepare", deaf)
    queue = TaskQueue("memory://", lease=30)
    again = queue.task(name="again", retries=1)(lambda: None)
    with World(queue) as world:
        worker = world.add_worker("worker")
        result = again()
        while result.state != "executing":
            worker.step()
        result.cancel()
        world.failures.append((ValueError("uh-oh"), False))
        worker.step(100)
        if heeded:
            world.finish()
            world.audit()
            assert result.state == "canceled"
            assert queue.retry(result.id)
            world.finish()
            world.audit()
            assert result.state == "complete", "somebody wants it again"
        else:
            (fault,) = world.auditor.faults
            assert fault.endswith("cancellation was requested before, but attempt 2 has begun")


def test_command_line_runs_worlds(capsys, monkeypatch):
    """`python -m lifecycle.testing` runs worlds, and prints their events or the first violation."""
    assert main(["--seeds", "3", "--tasks", "10", "--workers", "2"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("3 worlds, 30 tasks, ")
    assert out.endswith("; no violation\n")
    owner, name, broken = BUGS["what is released is lost"]
    monkeypatch.setattr(owner, name, broken(getattr(owner, name)))
    assert main(["--seeds", "3", "--first", "5", "--tasks", "10"]) == 1
    assert capsys.readouterr().out.startswith("seed 5: ")
