"""Simulated worlds that a random generator drives: the same seed gives the same run.

``python -m lifecycle.testing --seeds 1000 --workers 4 --tasks 50`` runs a thousand worlds, and audits each.
"""

import argparse
import logging
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Final

import attrs

from lifecycle.clock import monotonic
from lifecycle.core.machine import IllegalTransition
from lifecycle.core.nodes import Node, Pipeline, chord, group
from lifecycle.core.schedules import IntervalSchedule, Misfire
from lifecycle.core.table import EXECUTING, LIFECYCLE, Kind
from lifecycle.core.task import Task
from lifecycle.errors import (
    CancelExecution,
    RateLimitExceeded,
    RetryTask,
    TaskLockedException,
    TaskTimeout,
    UnknownTask,
)
from lifecycle.queue import TaskQueue
from lifecycle.storage.base import Storage
from lifecycle.testing.simulation.audit import Violation
from lifecycle.testing.simulation.stepping import SimulatedProcess
from lifecycle.testing.simulation.world import World

__all__ = ["Run", "main", "simulate"]

LEASE_SECONDS: Final = 30.0
BRINK_SECONDS: Final = 0.5
"""Time before the end of a lease."""
TICK_SECONDS: Final = 7.0
"""Interval of the periodic task."""
OTHER_TICK_SECONDS: Final = 10.0
"""Interval of the same task in another version of the program."""
WORKFLOW_PROBABILITY: Final = 0.3
"""Probability that a producer enqueues a workflow as well."""
BUSY_PROBABILITY: Final = 0.9
"""Probability that a process just takes its next steps."""


@attrs.frozen
class Run:
    """The result of one simulated world."""

    seed: int
    tasks: int
    """Tasks of producers."""
    ticks: int
    """Tasks of ticks of a periodic task."""
    turns: int
    """Turns of processes."""
    events: Counter[str]
    """Event → number of times: crashes, steps of the clock, …"""
    transition_counts: Counter[tuple[str | None, str]]
    """(state, next state) → number of times a task took that transition."""


_ENDINGS: Final[tuple[Callable[[random.Random], BaseException | None], ...]] = (
    lambda _: None,
    lambda _: None,
    lambda _: ValueError("it does not work"),
    lambda rng: RetryTask(delay=rng.choice((None, 0, 5))),
    lambda rng: CancelExecution(retry=rng.choice((None, True, False))),
    lambda _: TaskLockedException("taken"),
    lambda _: TaskTimeout(),
    lambda rng: RateLimitExceeded("api", 5, retry=rng.random() < 0.5),  # noqa: PLR2004 -- as often as not
    lambda _: SystemExit(1),
)


def simulate(
    seed: int, *, workers: int = 4, tasks: int = 50, crashes: bool = True, storage: Storage | None = None
) -> Run:
    """Run one world to its end, and audit it; raises `Violation`, which names the seed.

    Producers enqueue `tasks` tasks with all options, workers run them, and the tasks end in every possible way. With
    `crashes`, workers, producers and recoverers crash or freeze at any pause, and others replace them. The clock
    advances and steps back, tasks and functions are revoked and restored, operators retry. At the end, the remaining
    processes bring all tasks to rest.
    """
    rng = random.Random(seed)  # noqa: S311 -- makes choices, hides nothing
    queue = TaskQueue("memory://", lease=LEASE_SECONDS, max_interruptions=rng.choice((0, 1, 10)))
    with _without_log(), World(queue, storage=storage, seed=seed) as world:
        driver = _RandomDriver(world, rng, workers, tasks, crashes=crashes)
        try:
            driver.run()
            world.finish()
            world.audit()
            driver.check_ticks()
        except Violation as fault:
            raise Violation(f"seed {seed}: {fault}") from None
        ticks = {task_id for _, ids in world.tick_audit.made.get("tick", []) for task_id in ids}
        return Run(
            seed,
            len({*world.auditor.signals} - ticks),
            len(ticks),
            driver.turns,
            driver.events,
            world.transition_counts(),
        )


@contextmanager
def _without_log() -> Iterator[None]:
    """Drop the library's warnings: the run causes them on purpose."""
    log = logging.getLogger("lifecycle")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


class _RandomDriver:
    """Decides what happens in one world, in which order."""

    def __init__(self, world: World, rng: random.Random, workers: int, tasks: int, *, crashes: bool) -> None:
        self.world, self.rng, self.left = world, rng, tasks
        self.turns = 0
        self.events: Counter[str] = Counter()
        self._number = 0
        queue = world.queue

        def chore(endings: list[int], *_values: object, task: object = None) -> int:
            attempt = task.attempt  # type: ignore[attr-defined]
            if attempt <= len(endings):  # else endings that ask for a retry would go on for ever
                error = _ENDINGS[endings[attempt - 1]](random.Random(attempt))  # noqa: S311
                if error is not None:
                    raise error
            return int(attempt)

        self._functions = [
            queue.task(context=True, retries=rng.choice((0, 1, 3)), retry_delay=delay, name=f"chore after {delay}")(
                chore
            )
            for delay in (0, 5)
        ]
        for _ in range(workers):
            self._start_replaceable(world.add_worker, "worker")
        self._start_replaceable(world.add_recoverer, "recoverer")
        self._start_replaceable(self._producer, "producer")
        queue.periodic(every=TICK_SECONDS, misfire=Misfire.RUN_ALL, name="tick")(lambda: None)
        periodic = queue._ticker.tasks
        # Two consumers with different code: the second has another rule.
        other = {
            name: attrs.evolve(task, schedule=IntervalSchedule(OTHER_TICK_SECONDS)) for name, task in periodic.items()
        }
        self.mixed = rng.random() < 0.5  # noqa: PLR2004 -- in half of all worlds
        self._start_replaceable(lambda name: world.add_ticker(name, periodic), "ticker")
        self._start_replaceable(lambda name: world.add_ticker(name, other if self.mixed else periodic), "ticker")
        self._event_weights: dict[Callable[[], None], int] = {
            self._pass_time: 12, self._revoke: 4, self._cancel: 2, self._restore: 3, self._retry: 3, self._step_back: 1,
            self._deploy: 1,
        }  # fmt: skip
        if crashes:
            self._event_weights |= {self._crash: 5, self._oversleep: 3, self._return_late: 3, self._freeze: 3}
            self._event_weights |= {self._wake: 6}
            self._event_weights |= {self._stop_heartbeats: 1, self._recover_too_early: 2}

    def run(self) -> None:
        """Run until all tasks are enqueued, and a while longer."""
        events, weights = list(self._event_weights), list(self._event_weights.values())
        rest = 200
        while (self.left or rest) and not self.world.auditor.faults:
            rest -= not self.left
            able = [process for process in self.world.processes.values() if process.can_run]
            # Idle processes run only now and then; mostly, no event happens.
            busy = [process for process in able if not process.idle] if self.rng.random() < BUSY_PROBABILITY else able
            if busy and self.rng.random() < BUSY_PROBABILITY:
                self.rng.choice(busy).step(self.rng.choice((1, 1, 2, 3, 8, 20)))
                self.turns += 1
            else:
                (event,) = self.rng.choices(events, weights)
                event()
                self.events[event.__name__.strip("_")] += 1

    def check_ticks(self) -> None:
        """Check that each tick was made once; where the consumers have different rules, only that none came twice."""
        for tick, tasks in self.world.tick_audit.made.get("tick", []):
            if tick.before is not None and not self.mixed:
                wanted = max(0, int(tick.until // TICK_SECONDS) - int(tick.before // TICK_SECONDS))
                if len(tasks) != wanted:
                    raise Violation(f"{tick} has made {len(tasks)} tasks, there are {wanted} ticks")

    def _start_replaceable(self, add: Callable[[str], SimulatedProcess], kind: str) -> None:
        self._number += 1
        add(f"{kind} {self._number}").start_replacement = lambda: self._start_replaceable(add, kind)

    def _producer(self, name: str) -> SimulatedProcess:
        return self.world.add_process(name, lambda _: self._produce())

    def _produce(self) -> None:
        while self.left:
            # Sometimes many at once, so that workers are busy.
            nodes: list[Node] = [self._task() for _ in range(min(self.left, self.rng.choice((1, 1, 12))))]
            if self.left > 1 and self.rng.random() < WORKFLOW_PROBABILITY:
                nodes.append(self._workflow(min(self.left, self.rng.choice((2, 3, 4, 6)))))
            self.world.queue.enqueue_many(nodes)

    def _workflow(self, size: int) -> Node:
        """Make a workflow of so many tasks, at least two: of which shape, and in which order, is random."""
        parts: list[Task | Pipeline] = [self._task() for _ in range(size)]
        first, *rest = parts
        if len(rest) > 2 and self.rng.random() < 0.5:  # noqa: PLR2004 -- some have pipelines in them
            rest = [Pipeline(*rest[:2]), *rest[2:]]
        shape = self.rng.choice(("pipeline", "group", "chord", "caught"))
        if shape == "pipeline":
            return Pipeline(first, *rest)
        if shape == "group":
            return group([first, *rest])
        if shape == "chord":
            return chord(rest, first)
        return Pipeline(*rest).error(first)

    def _task(self) -> Task:
        self.left -= 1
        rng = self.rng
        task = rng.choice(self._functions).s([rng.randrange(len(_ENDINGS)) for _ in range(rng.choice((1, 2, 4)))])
        task.id = f"t{self.left}"
        task.priority = rng.choice((0, 0, 1))
        now = self.world.clock.now()
        task.eta = now + rng.choice((1, 20, 100)) if rng.random() < 0.3 else None  # noqa: PLR2004
        if rng.random() < 0.2:  # noqa: PLR2004
            # A task that expires before its ETA is refused; at its ETA a busy worker may be too late.
            task.expires = (now if task.eta is None else task.eta + 0.5) + rng.choice((0, 10, 200))
        return task

    # Events --------------------------------------------------------------------------------------------------------

    def _pass_time(self) -> None:
        self.world.advance(self.rng.choice((0.1, 1.0, 5.0, LEASE_SECONDS / 3)))

    def _step_back(self) -> None:
        self.world.advance(-self.rng.choice((1.0, 20.0)))

    def _stop_heartbeats(self) -> None:
        self.world.advance(2 * LEASE_SECONDS, heartbeats=False)

    def _recover_too_early(self) -> None:
        """Run a recovery just before the first lease of a crashed or frozen worker lapses."""
        world = self.world
        running = world.storage.tasks([EXECUTING.name])
        held = [(task.lease or 0.0, world.processes.get(task.worker or "")) for task in running]
        ends = [lease - world.clock.now() for lease, process in held if process is not None and not process.can_run]
        if ends and min(ends) > BRINK_SECONDS:
            world.advance(min(ends) - BRINK_SECONDS)
        world.queue.engine.recover()

    def _crash(self) -> None:
        able = [process for process in self.world.processes.values() if not (process.ended or process.crashed)]
        if able:
            process = self.rng.choice(able)
            self.world.crash(process)
            if process.start_replacement is not None:
                process.start_replacement()

    def _freeze(self) -> None:
        busy = [process for process in self.world.processes.values() if process.can_run and not process.idle]
        if busy:
            self.world.freeze(self.rng.choice(busy))

    def _oversleep(self) -> None:
        """Freeze a busy process until its lease has lapsed, while the heartbeats of the others go on."""
        self._freeze()
        for _ in range(4):
            self.world.advance(LEASE_SECONDS / 3)

    def _return_late(self) -> None:
        """Freeze a process past its lease, and let it run again while others work on its tasks."""
        self._oversleep()
        self.world.queue.engine.recover()
        for process in [process for process in self.world.workers() if process.can_run]:
            process.step(self.rng.choice((2, 4, 6)))
        self._wake()

    def _wake(self) -> None:
        frozen = [process for process in self.world.processes.values() if process.frozen and not process.crashed]
        if frozen:
            process = self.rng.choice(frozen)
            self.world.freeze(process, frozen=False)
            process.step(self.rng.choice((1, 5)))

    def _revoke(self) -> None:
        until = self.rng.choice((None, timedelta(seconds=10)))
        once = self.rng.random() < 0.5  # noqa: PLR2004
        if self.rng.random() < 0.8:  # noqa: PLR2004
            self.world.queue.revoke_by_id(f"t{self.rng.randrange(50)}", until, once)
        else:
            self.world.queue.revoke_all(self.rng.choice(self._functions), timedelta(seconds=10), revoke_once=True)

    def _deploy(self) -> None:
        process = self.rng.choice(list(self.world.processes.values()))
        process.unknown = frozenset() if process.unknown else frozenset({self.rng.choice(self._functions).name})

    def _cancel(self) -> None:
        # Workers here do not look for cancellations while a task runs: they see the request at the next attempt.
        running = [task.id for task in self.world.storage.tasks([EXECUTING.name], limit=10)]
        with suppress(IllegalTransition, UnknownTask):  # it is at rest, or not enqueued yet
            self.world.queue.cancel(self.rng.choice(running) if running else f"t{self.rng.randrange(50)}")

    def _restore(self) -> None:
        self.world.queue.restore_by_id(f"t{self.rng.randrange(50)}")

    def _retry(self) -> None:
        # Only announced tasks: signals of an operator who is faster than the handlers may come before theirs.
        state = self.rng.choice(LIFECYCLE.of_kind(Kind.OUTCOME))
        resting = self.world.storage.tasks([state], limit=5)
        resting = [task for task in resting if self.world.auditor.is_announced(task)]
        if resting:
            try:
                self.world.queue.retry(self.rng.choice(resting).id)
            except IllegalTransition:  # another process has revoked it, or retried it
                self.events["retried too late"] += 1


def main(arguments: list[str] | None = None) -> int:
    """Run worlds, and print their events; exit code 1 at the first violation."""
    parser = argparse.ArgumentParser(prog="python -m lifecycle.testing", description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=100, help="how many worlds")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--workers", type=int, default=4, help="in each world")
    parser.add_argument("--tasks", type=int, default=50, help="in each world")
    options = parser.parse_args(arguments)
    started, runs = monotonic(), []
    for seed in range(options.first, options.first + options.seeds):
        try:
            runs.append(simulate(seed, workers=options.workers, tasks=options.tasks))
        except Violation as fault:
            sys.stdout.write(f"{fault}\n")
            return 1
    took = monotonic() - started
    events = sum((run.events for run in runs), Counter[str]())
    tasks, turns = sum(run.tasks for run in runs), sum(run.turns for run in runs)
    sys.stdout.write(
        f"{len(runs)} worlds, {tasks} tasks, {turns} turns in {took:.1f} s ({tasks / took:.0f} tasks/s); "
        + ", ".join(f"{name}: {count}" for name, count in events.most_common())
        + "; no violation\n"
    )
    return 0
