"""A simulated world of workers, producers and recoverers in one process, of which one runs at a time.

The code is the real code: `Worker`, `Engine`, the store's adapter. Each simulated process has a thread of its own, but
only one thread runs at a time, from one pause to the next. There is a pause before and after each write to the store,
after each signal, and before each function. The driver of the world decides which process takes the next step, crashes
or freezes: a random generator (`simulate`), or Hypothesis (`QueueSpec`). So every interleaving can be reached, and the
same decisions give the same run.
"""

import functools
import itertools
import random
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any, Final, Self, cast

from lifecycle.core.policies import FOREVER, WAITING
from lifecycle.core.table import EXECUTING
from lifecycle.core.task import Task
from lifecycle.execution.environment import Environment
from lifecycle.execution.registry import UnknownFunctions
from lifecycle.execution.ticks import PeriodicTask, Ticker
from lifecycle.execution.worker import Worker
from lifecycle.queue import TaskQueue
from lifecycle.storage import MemoryStorage
from lifecycle.storage.base import Channel, Storage
from lifecycle.testing.simulation.audit import Violation, WorldAudit
from lifecycle.testing.simulation.faults import FaultyFunctions
from lifecycle.testing.simulation.lease_audit import LeaseAudit
from lifecycle.testing.simulation.stepping import ManualHeartbeat, SimulatedProcess, current_process
from lifecycle.testing.simulation.tick_audit import TickAudit
from lifecycle.testing.simulation.workflow_audit import WorkflowAudit
from lifecycle.virtual_clock import VirtualClock

__all__ = ["World"]

WRITES: Final = frozenset(
    {"enqueue", "tick", "exchange", "release", "recover", "cancel", "revoke", "restore", "lock", "unlock"}
)
"""The methods of a store before and after which a process pauses."""
ROUND_LIMIT: Final = 10_000
"""A world that has not come to rest after so many rounds never will."""


class World:
    """Replaces a queue's store, clock and heartbeat until `close`. Use it as a context manager.

    The queue may be your program's own: its functions, handlers and hooks are used, its store is not touched.
    """

    def __init__(self, queue: TaskQueue, *, storage: Storage | None = None, seed: int = 0) -> None:
        """`storage`: the store of this world; default: in memory. `seed`: of the durations on the monotonic clock."""
        self.queue, self.storage = queue, storage if storage is not None else MemoryStorage()
        self.clock = VirtualClock()
        self.processes: dict[str, SimulatedProcess] = {}
        self.auditor = WorldAudit(self.storage)
        self.lease_audit = LeaseAudit(self.auditor.add_fault)
        self.tick_audit = TickAudit(self.auditor.add_fault)
        self.workflow_audit = WorkflowAudit(self.auditor.add_fault)
        self._tickers: list[SimulatedProcess] = []
        self.failures: list[tuple[BaseException, bool]] = []
        """The failures of the next functions: an exception, and whether the function does its work before."""
        # Drawn in advance, and used again and again: the clock is read all the time.
        rng = random.Random(seed)  # noqa: S311 -- makes choices, hides nothing
        self._durations = itertools.cycle([rng.choice((0.0, 0.0, 0.0001, 0.0004, 0.003)) for _ in range(97)])
        self._seconds = 0.0
        engine = queue.engine
        self.heartbeat = ManualHeartbeat(engine.prolong_leases)
        self._before = engine.environment, engine.after_enqueue, engine.functions
        pausing = cast(Storage, _PausingStorage(self))
        engine.replace_environment(
            Environment(pausing, self.clock, self._monotonic, self._process_name, self.heartbeat, _NoMemory())
        )
        engine.after_enqueue, engine.functions = (
            None,
            FaultyFunctions(engine.functions, self._next_failure, self._unknown_functions),
        )
        # Before all other handlers: during a slow handler, other processes announce later signals.
        engine.signals.connect(self._receive_signal)
        engine.signals._handlers.insert(0, engine.signals._handlers.pop())
        engine.signals._index()
        engine.hooks.register("pre_execute", "simulation")(self._begin_attempt)

    # Driving -------------------------------------------------------------------------------------------------------

    def add_process(self, name: str, main: Callable[[SimulatedProcess], object]) -> SimulatedProcess:
        """Add a process that runs `main`, step by step."""
        process = self.processes[name] = SimulatedProcess(name, main, self.auditor.add_fault)
        return process

    def add_worker(self, name: str) -> SimulatedProcess:
        """Add a process with one worker."""

        def work(process: SimulatedProcess) -> None:
            worker = Worker(self.queue.engine, process.name)
            worker.unknown = UnknownFunctions(lambda: self.queue.engine.functions)
            self.heartbeat.keep(worker.name)
            while not process.stopping:
                worker.work(lambda: not process.stopping)
                _pause_idle(process)

        return self.add_process(name, work)

    def add_recoverer(self, name: str) -> SimulatedProcess:
        """Add a process that recovers lapsed leases again and again."""

        def recover(process: SimulatedProcess) -> None:
            while not process.stopping:
                self.queue.engine.recover()
                _pause_idle(process)

        return self.add_process(name, recover)

    def add_ticker(self, name: str, tasks: dict[str, PeriodicTask]) -> SimulatedProcess:
        """Add a process that makes the ticks of periodic tasks, as its version of the program declares them."""

        def make_ticks(process: SimulatedProcess) -> None:
            ticker = Ticker(self.queue.engine)
            ticker.tasks = tasks
            while not process.stopping:
                ticker.make_ticks(self.clock.now())
                _pause_idle(process)

        process = self.add_process(name, make_ticks)
        self._tickers.append(process)
        return process

    def crash(self, process: SimulatedProcess) -> None:
        """End a process at its current pause; its leases will lapse."""
        process.crashed = True
        self.auditor.disturbed.add(process.name)

    def freeze(self, process: SimulatedProcess, frozen: bool = True) -> None:
        """Stop a process and its heartbeat for a while; ``frozen=False``: let it run again."""
        process.frozen = frozen
        self.auditor.disturbed.add(process.name)

    def advance(self, seconds: float, *, heartbeats: bool = True) -> None:
        """Let time pass, or set the clock back. Without heartbeats, shorter leases lapse."""
        self.clock.advance(seconds)
        self._seconds += max(seconds, 0.0)
        for process in self.processes.values():  # a call of the store that takes as long as a lease is like a freeze
            if process.call_started is not None and self._seconds - process.call_started >= self.queue.engine.lease:
                self.auditor.disturbed.add(process.name)
        if heartbeats:
            self.heartbeat.beat()
        else:
            self.auditor.disturbed.update(self.processes)

    def finish(self) -> None:
        """Let all tasks come to rest: run all processes, recover lapsed leases, advance the clock to due times.

        No more ticks of periodic tasks are made.
        """
        for process in self._tickers:
            process.stopping = True
        for process in self.processes.values():
            process.frozen, process.unknown = False, frozenset()
        for _ in range(ROUND_LIMIT):
            self.raise_faults()
            if not any(process.can_run and not process.stopping for process in self.workers()):
                self.add_worker(f"last {len(self.processes)}")
            for process in list(self.processes.values()):
                self._run_until_idle(process)
            self.queue.engine.recover()
            counts = self.storage.counts()
            if not any(counts.get(name) for name in (*WAITING, EXECUTING.name)):
                return
            due = self.storage.next_due()
            if due is None or due == FOREVER:  # a task of a crashed worker; others may wait for its end
                self.advance(self.queue.engine.lease)
            elif due > self.clock.now():
                self.advance(due - self.clock.now())
        raise Violation(f"the tasks do not come to rest: {self.storage.counts()}")

    def _run_until_idle(self, process: SimulatedProcess) -> None:
        if process.can_run:
            process.step(ROUND_LIMIT)
            if process.can_run and not process.idle:
                self.auditor.add_fault(f"{process.name} does not come to an end")

    def workers(self) -> list[SimulatedProcess]:
        """Return the worker processes, crashed ones included, and all other processes that have not ended."""
        processes = self.processes.values()
        return [one for one in processes if self.heartbeat.keeps(one, one.name) or not one.ended]

    # Results -------------------------------------------------------------------------------------------------------

    def raise_faults(self) -> None:
        """Raise `Violation` if a fault was found so far."""
        if self.auditor.faults:
            raise Violation("\n".join(self.auditor.faults))

    def audit(self) -> None:
        """Compare everything that has happened with the promises; raise `Violation` with every broken promise."""
        self.workflow_audit.finish()
        self.auditor.finish()

    def transition_counts(self) -> Counter[tuple[str | None, str]]:
        """Count the transitions of all tasks, as (state, next state)."""
        counts: Counter[tuple[str | None, str]] = Counter()
        for task in self.storage.tasks(limit=10**9):
            before = None
            for record in self.storage.history(task.id) or ():
                counts[before, record.state] += 1
                before = record.state
        return counts

    # Replacements of parts of the queue's engine -------------------------------------------------------------------

    def _receive_signal(self, signal: str, task: Task, exc: BaseException | None = None) -> None:
        del exc
        process = current_process()
        if process is None:
            self.auditor.note_signal(signal, task)
        elif not process.terminated:
            self.auditor.note_signal(signal, task)
            process.pause()

    def _begin_attempt(self, task: Task) -> None:
        process = current_process()
        if process is not None and not process.terminated:
            process.pause()
        self.auditor.note_attempt(task)

    def _next_failure(self) -> tuple[BaseException, bool] | None:
        return self.failures.pop(0) if self.failures and current_process() is not None else None

    def _unknown_functions(self) -> frozenset[str]:
        process = current_process()
        return frozenset() if process is None else process.unknown

    def _process_name(self) -> str:
        process = current_process()
        return "outside" if process is None else process.name

    def _monotonic(self) -> float:
        """Advance at each call: mostly hardly at all, sometimes by much."""
        self._seconds += next(self._durations)
        return self._seconds

    def close(self) -> None:
        """Give the queue its own store, clock, functions and hooks back."""
        for process in self.processes.values():
            process.terminate()
        engine = self.queue.engine
        engine.hooks.unregister("pre_execute", "simulation")
        engine.signals.disconnect(self._receive_signal)
        environment, engine.after_enqueue, engine.functions = self._before
        engine.replace_environment(environment)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _pause_idle(process: SimulatedProcess) -> None:
    process.idle = True
    process.pause()
    process.idle = False


class _NoMemory(dict[str, object]):
    """Keeps nothing: the processes of a world share an engine, and must not know what the others run."""

    def __setitem__(self, key: str, value: object) -> None: ...


class _PausingStorage:
    """A world's store, as its processes use it: they pause before and after each write."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._world.storage, name)
        return functools.partial(self._write, name, method) if name in WRITES else method

    def _write(self, name: str, method: Callable[..., object], *arguments: object, **options: object) -> object:
        process = current_process()
        if process is None:
            return self._note(name, arguments, method(*arguments, **options))
        process.call_started = self._world._seconds
        process.pause()
        answer = self._note(name, arguments, method(*arguments, **options))
        process.pause()
        process.call_started = None
        return answer

    def _note(self, name: str, arguments: tuple[object, ...], answer: object) -> object:
        self._world.lease_audit.note(name, arguments, answer)
        self._world.tick_audit.note(name, arguments, answer)
        self._world.workflow_audit.note(name, arguments, answer)
        if name == "cancel":
            self._world.auditor.note_cancel_request(cast(str, arguments[0]), accepted=bool(answer))
        return answer

    def extend(self, workers: Collection[str], until: float) -> int:
        """Extend leases, without a pause."""
        self._world.lease_audit.note("extend", (workers, until), None)
        return self._world.storage.extend(workers, until)

    def wait(self, channel: Channel, generation: int, timeout: float) -> bool:
        """Let other processes run instead."""
        process = current_process()
        if process is None:
            return self._world.storage.wait(channel, generation, timeout)
        process.pause()
        return True
