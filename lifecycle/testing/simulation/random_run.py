"""A simulated consumer of N workers, and all that can happen to it, by a seed: the same seed, the same run.

``python -m lifecycle.testing --seeds 1000 --workers 4 --tasks 50`` runs so many worlds and audits each one.
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
from lifecycle.testing.simulation.world import Actor, Violation, World

__all__ = ["Run", "main", "simulate"]

LEASE: Final = 30.0
"""Seconds."""
BRINK: Final = 0.5
"""Seconds before a lease's end."""
BUSY: Final = 0.9
"""How likely it is that somebody just goes on with what he does."""


@attrs.frozen
class Run:
    """What came of one simulated world."""

    seed: int
    tasks: int
    turns: int
    """How often it was another's turn."""
    happened: Counter[str]
    """What befell it: crashes, steps of the clock, …"""
    taken: Counter[tuple[str | None, str]]
    """(state, next state) → how often a task went that way."""


_ENDS: Final[tuple[Callable[[random.Random], BaseException | None], ...]] = (
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

    Producers enqueue so many tasks with every option there is, workers run them, and they end in every way there is;
    with `crashes` workers, producers and recoverers die or freeze at any moment and others take their place; the clock
    goes on and steps back, tasks and functions are revoked and restored, operators retry. In the end all that is left
    alive brings all tasks to rest.
    """
    rng = random.Random(seed)  # noqa: S311 -- makes choices, hides nothing
    queue = TaskQueue("memory://", lease=LEASE, max_interruptions=rng.choice((0, 1, 10)))
    with _quiet(), World(queue, storage=storage, seed=seed) as world:
        chaos = _Chaos(world, rng, workers, tasks, crashes=crashes)
        try:
            chaos.run()
            world.finish()
            world.audit()
        except Violation as fault:
            raise Violation(f"seed {seed}: {fault}") from None
        return Run(seed, len(world.heard), chaos.turns, chaos.happened, world.taken())


@contextmanager
def _quiet() -> Iterator[None]:
    """What the library would warn of is meant to happen here."""
    log = logging.getLogger("lifecycle")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


class _Chaos:
    """What happens in one world, in which order."""

    def __init__(self, world: World, rng: random.Random, workers: int, tasks: int, *, crashes: bool) -> None:
        self.world, self.rng, self.left = world, rng, tasks
        self.turns = 0
        self.happened: Counter[str] = Counter()
        self._number = 0
        queue = world.queue

        def chore(ends: list[int], task: object = None) -> int:
            attempt = task.attempt  # type: ignore[attr-defined]
            if attempt <= len(ends):  # some ways to end ask for a next attempt, and would do so for ever
                error = _ENDS[ends[attempt - 1]](random.Random(attempt))  # noqa: S311
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
            self._replace(world.hire, "worker")
        self._replace(world.recoverer, "recoverer")
        self._replace(self._producer, "producer")
        self._events: dict[Callable[[], None], int] = {
            self._wait: 12, self._revoke: 4, self._cancel: 2, self._restore: 3, self._retry: 3, self._step_back: 1,
        }  # fmt: skip
        if crashes:
            self._events |= {self._crash: 5, self._oversleep: 3, self._return: 3, self._freeze: 3, self._wake: 6}
            self._events |= {self._stall: 1, self._brink: 2}

    def run(self) -> None:
        """Until all is enqueued, and a while longer."""
        events, weights = list(self._events), list(self._events.values())
        rest = 200
        while (self.left or rest) and not self.world.faults:
            rest -= not self.left
            able = [actor for actor in self.world.actors.values() if actor.can_go_on]
            # Who has found nothing to do looks again now and then; most of the time nothing special happens.
            busy = [actor for actor in able if not actor.idle] if self.rng.random() < BUSY else able
            if busy and self.rng.random() < BUSY:
                self.rng.choice(busy).step(self.rng.choice((1, 1, 2, 3, 8, 20)))
                self.turns += 1
            else:
                (event,) = self.rng.choices(events, weights)
                event()
                self.happened[event.__name__.strip("_")] += 1

    def _replace(self, hire: Callable[[str], Actor], kind: str) -> None:
        self._number += 1
        hire(f"{kind} {self._number}").replacement = lambda: self._replace(hire, kind)

    def _producer(self, name: str) -> Actor:
        return self.world.add(name, lambda _: self._produce())

    def _produce(self) -> None:
        while self.left:
            # Many at once now and then, so that workers are busy.
            tasks = [self._task() for _ in range(min(self.left, self.rng.choice((1, 1, 12))))]
            self.world.queue.enqueue_many(tasks)

    def _task(self) -> Task:
        self.left -= 1
        rng = self.rng
        task = rng.choice(self._functions).s([rng.randrange(len(_ENDS)) for _ in range(rng.choice((1, 2, 4)))])
        task.id = f"t{self.left}"
        task.priority = rng.choice((0, 0, 1))
        now = self.world.clock.now()
        task.eta = now + rng.choice((1, 20, 100)) if rng.random() < 0.3 else None  # noqa: PLR2004
        task.expires = now + rng.choice((0, 10, 200)) if rng.random() < 0.2 else None  # noqa: PLR2004
        return task

    # Events --------------------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        self.world.advance(self.rng.choice((0.1, 1.0, 5.0, LEASE / 3)))

    def _step_back(self) -> None:
        self.world.advance(-self.rng.choice((1.0, 20.0)))

    def _stall(self) -> None:
        self.world.advance(2 * LEASE, beats=False)

    def _brink(self) -> None:
        """Somebody looks for what is left behind, just before the first of it lapses."""
        world = self.world
        held = [
            (task.lease or 0.0, world.actors.get(task.worker or "")) for task in world.store.tasks([EXECUTING.name])
        ]
        ends = [lease - world.clock.now() for lease, actor in held if actor is not None and not actor.can_go_on]
        if ends and min(ends) > BRINK:
            world.advance(min(ends) - BRINK)
        world.queue.engine.recover()

    def _crash(self) -> None:
        able = [actor for actor in self.world.actors.values() if not (actor.over or actor.crashed)]
        if able:
            actor = self.rng.choice(able)
            self.world.crash(actor)
            if actor.replacement is not None:
                actor.replacement()

    def _freeze(self) -> None:
        busy = [actor for actor in self.world.actors.values() if actor.can_go_on and not actor.idle]
        if busy:
            self.world.freeze(self.rng.choice(busy))

    def _oversleep(self) -> None:
        """Somebody freezes in the middle of what he does, until his lease has lapsed; the hearts of others beat."""
        self._freeze()
        for _ in range(4):
            self.world.advance(LEASE / 3)

    def _return(self) -> None:
        """Somebody oversleeps, and comes back in the midst of what others do with what he had."""
        self._oversleep()
        self.world.queue.engine.recover()
        for actor in [actor for actor in self.world.workers() if actor.can_go_on]:
            actor.step(self.rng.choice((2, 4, 6)))
        self._wake()

    def _wake(self) -> None:
        frozen = [actor for actor in self.world.actors.values() if actor.frozen and not actor.crashed]
        if frozen:
            actor = self.rng.choice(frozen)
            self.world.freeze(actor, frozen=False)
            actor.step(self.rng.choice((1, 5)))

    def _revoke(self) -> None:
        until = self.rng.choice((None, timedelta(seconds=10)))
        once = self.rng.random() < 0.5  # noqa: PLR2004
        if self.rng.random() < 0.8:  # noqa: PLR2004
            self.world.queue.revoke_by_id(f"t{self.rng.randrange(50)}", until, once)
        else:
            self.world.queue.revoke_all(self.rng.choice(self._functions), timedelta(seconds=10), revoke_once=True)

    def _cancel(self) -> None:
        # No worker here is told while its task runs: it learns of it when it takes up the task once more.
        running = [task.id for task in self.world.store.tasks([EXECUTING.name], limit=10)]
        with suppress(IllegalTransition, UnknownTask):  # it has come to its end, or is not there yet
            self.world.queue.cancel(self.rng.choice(running) if running else f"t{self.rng.randrange(50)}")

    def _restore(self) -> None:
        self.world.queue.restore_by_id(f"t{self.rng.randrange(50)}")

    def _retry(self) -> None:
        # An operator has heard of what he retries: who is faster than the handlers may be heard before them.
        state = self.rng.choice(LIFECYCLE.of_kind(Kind.OUTCOME))
        resting = [task for task in self.world.store.tasks([state], limit=5) if self.world.told(task)]
        if resting:
            try:
                self.world.queue.retry(self.rng.choice(resting).id)
            except IllegalTransition:  # somebody was faster
                self.happened["retried too late"] += 1


def main(arguments: list[str] | None = None) -> int:
    """Run worlds, and say what happened in them; exit code 1 at the first violation."""
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
    happened = sum((run.happened for run in runs), Counter[str]())
    tasks, turns = sum(run.tasks for run in runs), sum(run.turns for run in runs)
    sys.stdout.write(
        f"{len(runs)} worlds, {tasks} tasks, {turns} turns in {took:.1f} s ({tasks / took:.0f} tasks/s); "
        + ", ".join(f"{name}: {count}" for name, count in happened.most_common())
        + "; no violation\n"
    )
    return 0
