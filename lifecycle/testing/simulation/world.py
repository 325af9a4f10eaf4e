"""A whole world of workers, producers and recoverers in one place, in which one thing happens after the other.

The code that runs is the real one: `Worker`, `Engine`, the store's adapter. Each actor has a thread of its own, but
only one of them runs at a time, from one pause to the next: there is one before and after each operation of the store
that changes something, after each signal, and before each task's body. Who goes on next, who dies there, or freezes, is
said by whoever moves the world: a random generator (`lifecycle.testing`), or Hypothesis (`QueueSpec`). So every
interleaving can be reached, and the same choices give the same run.
"""

import functools
import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any, Final, Self, cast

from lifecycle.analysis.checker import Checker, IllegalSequence
from lifecycle.core.policies import WAITING
from lifecycle.core.table import EXECUTING, LIFECYCLE
from lifecycle.core.task import Task
from lifecycle.execution.environment import Environment
from lifecycle.execution.signals import SIGNAL_EXECUTING, SIGNALS
from lifecycle.execution.worker import Worker
from lifecycle.queue import TaskQueue
from lifecycle.storage import MemoryStorage
from lifecycle.storage.base import Channel, Storage
from lifecycle.testing.simulation.faults import FaultyFunctions
from lifecycle.testing.simulation.lease_audit import LeaseAudit
from lifecycle.virtual_clock import VirtualClock

__all__ = ["Actor", "Violation", "World"]

CHANGES: Final = frozenset(
    {"enqueue", "exchange", "release", "recover", "cancel", "revoke", "restore", "lock", "unlock"}
)
"""The operations of a store around which an actor pauses."""
ROUNDS: Final = 10_000
"""After so many rounds a world that does not come to rest never will."""


class Violation(AssertionError):
    """The world has broken a promise: each line is one."""


class _Gone(BaseException):
    """Ends the thread of an actor whose world is over."""


class Actor:
    """Somebody who acts, in a thread that runs only while it is its turn."""

    def __init__(self, world: "World", name: str, act: Callable[["Actor"], object]) -> None:
        """`act`: what it does, from beginning to end; called with the actor."""
        self.name = name
        self.idle = self.over = self.crashed = self.frozen = self.stopping = False
        """`idle`: it has found nothing to do. `over`: it has done all it had to, or is dead."""
        self._world, self._act = world, act
        self._turn = threading.Lock()
        self._turn.acquire()
        self.thread = threading.Thread(target=self._run, name=f"simulated {name}", daemon=True)
        self._gone = False
        self._left = 0
        self.asked: float | None = None
        """Since when it has been in a call of the store (`Engine.monotonic`)."""
        self.replacement: Callable[[], object] | None = None
        """Finds somebody who takes its place, should it die."""

    @property
    def can_go_on(self) -> bool:
        """Is it alive, and not frozen?"""
        return not (self.over or self.crashed or self.frozen)

    def step(self, pauses: int = 1) -> None:
        """Let it go on to its next pause, or over some; at the latest until it has nothing to do."""
        self._world.current, self._left = self, pauses
        if self.thread.ident is None:
            self.thread.start()
        self._turn.release()
        self._world.turn.acquire()
        self._world.current = None

    def pause(self) -> None:
        """In its thread: let others go on, until it is its turn again."""
        self._left -= 1
        if not self._gone and (self._left <= 0 or self.idle):
            self._world.turn.release()
            self._turn.acquire()
        if self._gone:
            raise _Gone

    def dismiss(self) -> None:
        """End its thread: nothing that it does on its way out is seen by anybody."""
        self._gone = True
        if self.thread.ident is not None and self.thread.is_alive():
            self._turn.release()
            self.thread.join()

    def _run(self) -> None:
        self._turn.acquire()
        try:
            if not self._gone:
                self._act(self)
        except _Gone:
            pass
        except BaseException as error:  # noqa: BLE001 -- whatever it is, it is this world's fault
            if not self._gone:
                self._world.fault(f"{self.name} has died of {error!r}")
        self.over = True
        if not self._gone:
            self._world.turn.release()


class World:
    """Takes over a queue until `close`: its store, its clock, its heartbeat. Use it as a context manager.

    The queue may be any, a program's own too: its functions, handlers and hooks are used as they are; what it keeps in
    its own store is not touched.
    """

    def __init__(self, queue: TaskQueue, *, storage: Storage | None = None, seed: int = 0) -> None:
        """`storage`: where the tasks of this world are kept; default: in memory. `seed`: of how long things take."""
        self.queue, self.store = queue, storage if storage is not None else MemoryStorage()
        self.clock = VirtualClock()
        self.turn = threading.Lock()
        self.turn.acquire()
        self.current: Actor | None = None
        self.actors: dict[str, Actor] = {}
        self.faults: list[str] = []
        self.ledger = LeaseAudit(self.fault)
        self.heard: dict[str, list[str]] = {}
        """Task id → the signals that handlers heard, in order."""
        self.cancel_requested: set[object] = set()
        """The ids of tasks that may have been started without being called, since they were called off before."""
        self._wishes: dict[str, int] = {}
        """Task id → the attempt in which it was called off."""
        self.ran: dict[str, list[int]] = {}
        """Task id → the attempts whose body was begun, in order."""
        self.ended: Counter[tuple[str, bool]] = Counter()
        """(signal of what an attempt ended in, whether it had retries left) → how often that was heard."""
        self.troubles: list[tuple[BaseException, bool]] = []
        """What befalls the bodies that run next, one each: an error, and whether it comes after the body or instead."""
        self._attempts: dict[str, bool] = {}
        self.touched: set[str] = set()
        """Who has crashed, frozen or lost a lease: of what these do not every signal is heard."""
        self._told: set[tuple[str, int]] = set()
        self._places: dict[str, int] = {}
        self._kept: dict[tuple[str | None, str], int] = {}
        # Drawn beforehand, and over and over again: the clock is looked at all the time.
        rng = random.Random(seed)  # noqa: S311 -- makes choices, hides nothing
        self._steps = itertools.cycle([rng.choice((0.0, 0.0, 0.0001, 0.0004, 0.003)) for _ in range(97)])
        self._ticks = 0.0
        engine = queue.engine
        self._before = engine.environment, engine.after_enqueue, engine.functions
        engine.replace_environment(Environment(cast(Storage, _Sluice(self)), self.clock, self._tick, self._who, self))
        engine.after_enqueue, engine.functions = None, FaultyFunctions(engine.functions, self._trouble)
        # Before all other handlers: they may take their time, and what happens meanwhile is announced meanwhile.
        engine.signals._handlers.insert(0, (self._hear, set(SIGNALS)))
        engine.signals._index()
        engine.hooks.register("pre_execute", "simulation")(self._begin)

    # Moving it -----------------------------------------------------------------------------------------------------

    def add(self, name: str, act: Callable[[Actor], object]) -> Actor:
        """Somebody who does `act`, step by step."""
        actor = self.actors[name] = Actor(self, name, act)
        return actor

    def hire(self, name: str) -> Actor:
        """A worker, of a consumer process of its own."""

        def work(actor: Actor) -> None:
            worker = Worker(self.queue.engine, actor.name)
            self.keep(worker.name)
            while not actor.stopping:
                worker.work(lambda: not actor.stopping)
                self._rest(actor)

        return self.add(name, work)

    def recoverer(self, name: str) -> Actor:
        """Somebody who recovers lapsed leases, again and again."""

        def recover(actor: Actor) -> None:
            while not actor.stopping:
                self.queue.engine.recover()
                self._rest(actor)

        return self.add(name, recover)

    def _rest(self, actor: Actor) -> None:
        actor.idle = True
        actor.pause()
        actor.idle = False

    def crash(self, actor: Actor) -> None:
        """It never goes on: what it was about to do is not done, what it holds lapses."""
        actor.crashed = True
        self.touched.add(actor.name)

    def freeze(self, actor: Actor, frozen: bool = True) -> None:
        """It does not go on for a while, and its heart does not beat."""
        actor.frozen = frozen
        self.touched.add(actor.name)

    def beat(self) -> None:
        """The heartbeat of all who are alive."""
        names = [name for (owner, name) in self._kept if owner is None or self.actors[owner].can_go_on]
        self.queue.engine.prolong_leases(names)

    def advance(self, seconds: float, *, beats: bool = True) -> None:
        """Time passes, or the clock is set back. Without beats whatever is held for less lapses."""
        self.clock.advance(seconds)
        self._ticks += max(seconds, 0.0)
        for actor in self.actors.values():  # who hangs in a call for as long as a lease lasts is as good as frozen
            if actor.asked is not None and self._ticks - actor.asked >= self.queue.engine.lease:
                self.touched.add(actor.name)
        if beats:
            self.beat()
        else:
            self.touched.update(self.actors)

    def finish(self) -> None:
        """Let all come to rest: who is alive goes on, what is left behind is recovered, what is late becomes due."""
        for actor in self.actors.values():
            actor.frozen = False
        for _ in range(ROUNDS):
            if self.faults:
                raise Violation("\n".join(self.faults))
            if not any(actor.can_go_on and not actor.stopping for actor in self.workers()):
                self.hire(f"last {len(self.actors)}")
            for actor in list(self.actors.values()):
                self._run_on(actor)
            self.queue.engine.recover()
            counts = self.store.counts()
            if not any(counts.get(name) for name in (*WAITING, EXECUTING.name)):
                return
            due = self.store.next_due()
            if due is None:  # it runs, by somebody who is gone
                self.advance(self.queue.engine.lease)
            elif due > self.clock.now():
                self.advance(due - self.clock.now())
        raise Violation(f"the tasks do not come to rest: {self.store.counts()}")

    def _run_on(self, actor: Actor) -> None:
        """Until it is over, or finds nothing to do."""
        if actor.can_go_on:
            actor.step(ROUNDS)
            if actor.can_go_on and not actor.idle:
                self.fault(f"{actor.name} does not come to an end")

    def workers(self) -> list[Actor]:
        """Those that were hired, the dead ones included."""
        return [actor for actor in self.actors.values() if (actor.name, actor.name) in self._kept or not actor.over]

    def taken(self) -> Counter[tuple[str | None, str]]:
        """(state, next state) → how often a task went that way."""
        ways: Counter[tuple[str | None, str]] = Counter()
        for task in self.store.tasks(limit=10**9):
            before = None
            for record in self.store.history(task.id) or ():
                ways[before, record.state] += 1
                before = record.state
        return ways

    def told(self, task: Task) -> bool:
        """Was its last state announced?"""
        return self._places.get(task.id, 0) == task.version

    # Judging it ----------------------------------------------------------------------------------------------------

    def fault(self, text: str) -> None:
        """Something is wrong."""
        self.faults.append(text)

    def audit(self) -> None:
        """Hold all that has happened against the promises; raises `Violation`, naming each that was broken.

        Histories are legal and replay to the state; signals tell what was stored before, in order; no attempt runs
        twice, and who holds it ends it; nothing is lost. Each signal of who was never disturbed was heard.
        """
        stored = {task.id: task for task in self.store.tasks(limit=10**9)}
        for task_id in {*self.heard, *self.ran} - set(stored):
            self.fault(f"task {task_id} is gone")
        checker = Checker()
        for task in stored.values():
            self._judge(task, checker)
        if self.faults:
            raise Violation("\n".join(dict.fromkeys(self.faults)))

    def _judge(self, task: Task, checker: Checker) -> None:
        records = self.store.history(task.id) or []
        for place, record in enumerate(records, 1):
            if (task.id, place) not in self._told and record.worker not in self.touched:
                self.fault(f"{task}: nobody heard of {record.state}, number {place}, that {record.worker} has made")
        history = [record.state for record in records]
        signals = [LIFECYCLE.state(state).signal for state in history]
        try:
            for signal in signals:
                checker.feed(signal, task.id)
        except IllegalSequence as error:
            self.fault(str(error))
        if (history[-1], len(history)) != (task.state, task.version):
            self.fault(f"{task}: its history has {len(history)} lines, up to {history[-1]}")
        starts, ran = history.count(EXECUTING.name), self.ran.get(task.id, [])
        if len(ran) > starts or (len(ran) < starts and not self.touched and task.id not in self.cancel_requested):
            self.fault(f"{task}: it was started {starts} times, and ran {len(ran)} times")

    def _hear(self, signal: str, task: Task, exc: BaseException | None = None) -> None:
        del exc
        actor = self._me()
        if actor is not None and actor._gone:
            return
        lines, place = self.store.history(task.id) or [], self._places.get(task.id, 0)
        expected = lines[place:] if self.touched else lines[place : place + 1]
        who = task.worker, task.attempt  # else a word of one attempt would pass for that of another
        entered = LIFECYCLE.by_signal(signal)
        fits = (line.state == entered and (line.worker, line.attempt) == who for line in expected)
        found = next((place + n for n, fit in enumerate(fits) if fit), None)
        if found is None:
            states = ", ".join(line.state for line in lines)
            self.fault(f"{task}: {signal} of {who} was announced as number {place + 1}, and stored is {states}")
        self._places[task.id] = place + 1 if found is None else found + 1
        self._told.add((task.id, self._places[task.id]))
        self.heard.setdefault(task.id, []).append(signal)
        if signal == SIGNAL_EXECUTING:
            self._attempts[task.id] = task.retries > 0
        elif task.id in self._attempts:
            self.ended[signal, self._attempts.pop(task.id)] += 1
        if actor is not None:
            actor.pause()

    def _begin(self, task: Task) -> None:
        actor = self._me()
        if actor is not None and not actor._gone:
            actor.pause()
        ran = self.ran.setdefault(task.id, [])
        if task.attempt in ran:
            self.fault(f"{task}: attempt {task.attempt} has begun twice")
        ran.append(task.attempt)
        if task.attempt > self._wishes.get(task.id, task.attempt):
            stored = self.store.get(task.id)
            if stored is not None and stored.canceling:
                self.fault(f"{task}: it was called off before, and attempt {task.attempt} has begun")
            del self._wishes[task.id]  # it has come to rest since, and somebody wants it again

    # In the place of what a real queue has --------------------------------------------------------------------------

    def _me(self) -> Actor | None:
        """The actor whose thread this is; ``None``: nobody's."""
        thread = threading.current_thread()
        return next((actor for actor in (self.current,) if actor is not None and actor.thread is thread), None)

    def _trouble(self) -> tuple[BaseException, bool] | None:
        return self.troubles.pop(0) if self.troubles and self._me() is not None else None

    def _who(self) -> str:
        actor = self._me()
        return "outside" if actor is None else actor.name

    def _tick(self) -> float:
        """A clock of its own for a worker's decisions: at times hardly anything takes long, at times something does."""
        self._ticks += next(self._steps)
        return self._ticks

    def keep(self, name: str) -> None:
        """See `Heartbeat.keep`."""
        actor = self._me()
        key = (None if actor is None else actor.name), name
        self._kept[key] = self._kept.get(key, 0) + 1

    def drop(self, name: str) -> None:
        """See `Heartbeat.drop`."""
        actor = self._me()
        key = (None if actor is None else actor.name), name
        if self._kept.get(key, 0) > 1:
            self._kept[key] -= 1
        else:
            self._kept.pop(key, None)

    def close(self) -> None:
        """Give the queue back what was its own."""
        for actor in self.actors.values():
            actor.dismiss()
        engine = self.queue.engine
        engine.hooks.unregister("pre_execute", "simulation")
        engine.signals.disconnect(self._hear)
        environment, engine.after_enqueue, engine.functions = self._before
        engine.replace_environment(environment)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Sluice:
    """A world's store, as its actors see it: they pause before and after each change."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._world.store, name)
        return functools.partial(self._through, name, method) if name in CHANGES else method

    def _through(self, name: str, method: Callable[..., object], *arguments: object, **options: object) -> object:
        actor = self._world._me()
        if actor is None:
            return self._told(name, arguments, method(*arguments, **options))
        actor.asked = self._world._ticks
        actor.pause()
        answer = self._told(name, arguments, method(*arguments, **options))
        actor.pause()
        actor.asked = None
        return answer

    def _told(self, name: str, arguments: tuple[object, ...], answer: object) -> object:
        world = self._world
        world.ledger.note(name, arguments, answer)
        if name == "cancel":
            task_id = cast(str, arguments[0])
            world.cancel_requested.add(task_id)
            task = world.store.get(task_id)
            if answer and task is not None:  # it runs
                world._wishes[task_id] = task.attempt
        return answer

    def extend(self, workers: Collection[str], until: float) -> int:
        """See `Storage.extend`."""
        self._world.ledger.note("extend", (workers, until), None)
        return self._world.store.extend(workers, until)

    def wait(self, channel: Channel, generation: int, timeout: float) -> bool:
        """See `Storage.wait`: others go on meanwhile."""
        actor = self._world._me()
        if actor is None:
            return self._world.store.wait(channel, generation, timeout)
        actor.pause()
        return True
