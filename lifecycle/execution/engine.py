"""One queue without its public face: its store, functions, signals and hooks, and the moves that it announces.

Persist, then announce: each method here that moves a task commits the move first, then calls the handlers, then
releases the task for the next claim.
"""

import itertools
import logging
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from typing import Final, cast

from lifecycle.core import policies
from lifecycle.core.machine import IllegalTransition
from lifecycle.core.policies import WAITING, Move, Revocation
from lifecycle.core.serializer import Serializer
from lifecycle.core.table import CANCEL, EXECUTING, INTERRUPT, LIFECYCLE, RECOVER, REVOKED, Kind
from lifecycle.core.task import Task
from lifecycle.errors import StorageError, UnknownTask
from lifecycle.execution.environment import Environment, LeaseKeeper
from lifecycle.execution.heartbeat import Heartbeat
from lifecycle.execution.interruption import shield, shielded
from lifecycle.execution.new_tasks import prepare
from lifecycle.execution.process_name import has_ended
from lifecycle.execution.registry import Function, Hooks, UnknownFunctions
from lifecycle.execution.signals import Signals
from lifecycle.storage.base import Actor, RevocationTarget, Settlement, Storage

__all__ = ["Engine", "unknown_task"]

log = logging.getLogger("lifecycle")

_SIGNAL: Final = {state.name: state.signal for state in LIFECYCLE.states}
_NO_LEASE: Final = nullcontext()
_HEARTBEATS_PER_LEASE: Final = 3
LOOK_FOR_ENDED_SECONDS: Final = 1.0
"""The time between two looks for processes of this host that have ended."""
_ENDED_LIMIT: Final = 1000
"""How many running tasks are read to find the processes that have ended."""
_RUNNING_LIMIT: Final = 10_000
"""How many running tasks are read to find those of one worker."""
PRUNE_STEP_LIMIT: Final = 20
PURGE_LIMIT: Final = 1000
"""Tasks that one step of `Engine.purge` deletes, in one transaction."""
"""Largest number of steps of one clean-up."""


class Engine:
    """The moves of one queue's tasks, committed and announced."""

    def __init__(
        self,
        environment: Environment,
        serializer: Serializer,
        *,
        lease: float,
        max_interruptions: int,
        max_bytes: int,
        intermediate_errors: bool,
        name: str = "default",
    ) -> None:
        """`lease`: seconds; `name`: the queue's name; the rest as in `TaskQueue`."""
        self.name = name
        self.serializer = serializer
        self.lease, self.max_interruptions, self.intermediate_errors = lease, max_interruptions, intermediate_errors
        self.max_bytes = max_bytes
        self.signals = Signals()
        self.hooks = Hooks()
        self.functions: dict[str, Function] = {}
        self.unknown = UnknownFunctions(lambda: self.functions)
        self.interruption_limits: dict[str, int] = {}
        """The limits of functions that have one of their own, by name; all others have `max_interruptions`."""
        self.after_enqueue: Callable[[], object] | None = None
        """Called after each enqueue: immediate mode runs due tasks here."""
        self.worker_numbers = itertools.count(1)
        """Numbers for the names of workers: no two workers of a process have the same."""
        self.held_locks: dict[str, list[tuple[str, str]]] = {}
        """Task id → name and owner of each lock that its attempt has taken in this process and not given back."""
        self.deferred: deque[Callable[[], object]] = deque()
        """Calls of the store that failed and must be repeated: unlocking a lock, releasing a task. This process's
        heartbeat would keep both held for as long as the process lives."""
        self.unannounced: dict[int, list[tuple[Task, Move, float]]] = {}
        """Id of a connection whose transaction this process will end → the tasks, their moves, and the monotonic time
        of each call, to be announced then."""
        self.known_to_wait: set[str] = set()
        """Names of functions of which a log line has said that their tasks wait for tasks that no worker starts."""
        self._triggers = LIFECYCLE.machine().triggers
        self._look_for_ended_at = float("-inf")
        self._heartbeat = Heartbeat(
            self.prolong_leases, lease / _HEARTBEATS_PER_LEASE, lambda: (self.clock.now(), self.monotonic())
        )
        self.replace_environment(environment)

    def replace_environment(self, environment: Environment) -> None:
        """Use another store, clock, heartbeat and name from now on; `environment` is the present one."""
        self.environment = environment
        self.storage = cast(Storage, shield(environment.storage, Storage))
        """The store, shielded: within a running function, no exception from outside interrupts one of its calls."""
        self.clock, self.monotonic = environment.clock, environment.monotonic
        self.process_name, self.running = environment.process_name, environment.running
        self.heartbeat: LeaseKeeper = environment.lease_keeper or self._heartbeat

    def __str__(self) -> str:
        return f"the queue {self.name!r} on {self.environment.storage.location}"

    def flush_deferred(self) -> None:
        """Repeat the calls of the store that have failed, until one fails again."""
        while self.deferred:
            try:
                call = self.deferred.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                call()
            except StorageError as error:
                self.deferred.appendleft(call)
                log.debug("a deferred call of the store failed again: %s", error)
                return

    def prolong_leases(self, workers: Collection[str]) -> None:
        """Prolong the leases of these workers, and repeat deferred calls. Raises `StorageError`."""
        self.flush_deferred()
        self.storage.extend(list(workers), self.clock.now() + self.lease)

    # Tasks ---------------------------------------------------------------------------------------------------------

    def enqueue(self, tasks: Sequence[Task], *, checked: bool = False) -> None:
        """Serialize, store and announce tasks, all or none; raises the errors of `TaskQueue.enqueue`.

        `checked`: no caller could change the tasks since they were made of checked options.
        """
        now = self.clock.now()
        prepare(tasks, now, self.serializer, self.functions, self.max_bytes, checked=checked)
        if self.signals.announces_births or self.after_enqueue is not None:
            self._enqueue_and_announce(tasks, now)
            return
        # Nothing is held: without a handler, nobody could see a later signal overtake `enqueued`.
        for task, move in zip(tasks, self.storage.enqueue(tasks, now, Actor(self.process_name())), strict=True):
            move.apply(task)

    @shielded
    def _enqueue_and_announce(self, tasks: Sequence[Task], now: float) -> None:
        requested_at = self.monotonic()
        hold_until = now + self.lease if self.signals.announces_births else None
        with self.keeping_leases(hold_until):
            moves = self.storage.enqueue(tasks, now, Actor(self.process_name(), hold_until))
            for task, move in zip(tasks, moves, strict=True):
                self.announce(task, move, requested_at)
            if hold_until is not None:
                self.release(tasks)
        if self.after_enqueue is not None:
            self.after_enqueue()

    def keeping_leases(self, hold_until: float | None) -> AbstractContextManager[None]:
        """Keep this process's leases alive while it announces tasks that it holds, however long the handlers take.

        `hold_until`: ``None`` says that nothing is held.
        """
        return _NO_LEASE if hold_until is None else self._keeping()

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        name = self.process_name()
        self.heartbeat.keep(name)
        try:
            yield
        finally:
            self.heartbeat.drop(name)

    def get(self, task_id: str) -> Task:
        """Return a copy of a stored task; raises `UnknownTask`."""
        task = self.storage.get(task_id)
        if task is None:
            raise unknown_task(task_id)
        return self.attach_serializer(task)

    def attach_serializer(self, task: Task) -> Task:
        """Enable a task from the store to decode its arguments; return the task."""
        task.loads = self.serializer.loads
        return task

    @shielded
    def retry(self, task_id: str) -> None:
        """Retry a task for an operator. Raises `UnknownTask`, or `IllegalTransition` unless it rests in an outcome."""
        while True:
            task, now, requested_at = self.get(task_id), self.clock.now(), self.monotonic()
            move = policies.retry(task, now, worker=self.process_name())
            move.lease = move.hold_until = self.hold_until(task.state, move.path, now)
            (took,), _ = self.storage.exchange([Settlement(task, move)], None)
            if took:  # else the task moved between the two calls: look again
                break
        with self.keeping_leases(move.hold_until):
            self.announce(task, move, requested_at)
            self.release([task])
        if self.after_enqueue is not None:
            self.after_enqueue()

    @shielded
    def recover(self, now: float | None = None) -> int:
        """Recover the tasks whose lease has lapsed, and announce that; return how many tasks moved."""
        now, requested_at = self.clock.now() if now is None else now, self.monotonic()
        actor = Actor(self.process_name(), self.hold_until(EXECUTING.name, (INTERRUPT, RECOVER), now))
        claims = self.storage.recover(
            now, actor, max_interruptions=self.max_interruptions, of_functions=self.interruption_limits
        )
        with self.keeping_leases(actor.hold_until if claims else None):
            for task, move in claims:
                log.warning(
                    "%s was interrupted: the lease of its worker %s has lapsed; %s",
                    task,
                    task.worker,
                    self.after_interruption(task, move),
                )
                self.announce(self.attach_serializer(task), move, requested_at)
                self.release([task])
        return len(claims)

    def interruption_limit(self, function: str) -> int:
        """Return how often a task of this function is requeued after an interruption."""
        return self.interruption_limits.get(function, self.max_interruptions)

    def after_interruption(self, task: Task, move: Move) -> str:
        """Return what follows for an interrupted task, for the log."""
        count = f"interruption {move.interruptions}, {self.interruption_limit(task.name)} are allowed"
        if move.ended is not None:
            return f"it rests {move.state} ({count})"
        wait = "" if move.eta is None else f" in {move.eta - move.at:g} s"
        return f"it is requeued{wait}" + (f" ({count})" if move.interruptions > task.interruptions else "")

    def running_tasks(self, worker: str) -> list[Task]:
        """Return copies of the tasks that a worker holds to run them, the oldest first."""
        running = self.storage.tasks([EXECUTING.name], _RUNNING_LIMIT)
        return [self.attach_serializer(task) for task in reversed(running) if task.worker == worker]

    def expire_ended_workers(self, now: float) -> None:
        """Let the leases of workers lapse whose processes have ended on this host, for the next `recover`.

        Looks at most once in `LOOK_FOR_ENDED_SECONDS`.
        """
        if self.monotonic() < self._look_for_ended_at:
            return
        own, self._look_for_ended_at = self.process_name(), self.monotonic() + LOOK_FOR_ENDED_SECONDS
        running = {task.worker or "" for task in self.storage.tasks([EXECUTING.name], _ENDED_LIMIT)}
        if ended := [worker for worker in running if worker.partition("/")[0] != own and has_ended(worker)]:
            log.warning("end the leases of processes of this host that have ended: workers=%s", ",".join(sorted(ended)))
            self.storage.extend([*ended, *{worker.partition("/")[0] for worker in ended}], now)

    def prune(self, retention: float, limit: int) -> None:
        """Delete tasks that have rested longer than `retention` seconds, `limit` at a time, up to twenty times.

        Tasks may come to rest faster than one step deletes tasks: then more steps follow at once.
        """
        before = self.clock.now() - retention
        for _ in range(PRUNE_STEP_LIMIT):
            if self.storage.prune(before, limit) < limit:
                return

    def purge(self, before: float, states: Collection[str] | None) -> Iterator[int]:
        """Delete all tasks that came to rest before a moment (UTC seconds), in these states (``None``: in any).

        Yields the number of tasks of each step: a caller that stops, or fails, has deleted a part.
        """
        while count := self.storage.prune(before, PURGE_LIMIT, states):
            yield count

    def expire_leases(self, worker: str) -> None:
        """Let the leases of a worker that is certainly gone lapse now, for the next `recover`."""
        self.storage.extend([worker], self.clock.now())

    @shielded
    def cancel(self, task_id: str) -> None:
        """Cancel a task: revoke it if it waits, interrupt it if it runs.

        Raises `UnknownTask`, or `IllegalTransition` if the task is at rest.
        """
        target, revoked = RevocationTarget(function=False, key=task_id), False
        while True:
            state = self.get(task_id).state
            if state in WAITING and not revoked:
                self.revoke(target, Revocation())
                revoked = True  # but look again: a worker may have started the task just before
            elif revoked and state in (REVOKED, *WAITING):
                return
            elif state != EXECUTING or self.storage.cancel(task_id):
                break
        if revoked:  # in vain; the revocation must not stop an operator's retry one day
            self.restore(target)
        if state != EXECUTING:
            allowed = LIFECYCLE.allowed(state)
            raise IllegalTransition(state=state, trigger=CANCEL, allowed=allowed, subject=f"task {task_id}")

    def revoke(self, target: RevocationTarget, revocation: Revocation) -> None:
        """Revoke a task or a function: see `Storage.revoke`."""
        self.storage.revoke(target, revocation, self.clock.now())

    def restore(self, target: RevocationTarget) -> bool:
        """Take a revocation back; return False if there was none: see `Storage.restore`."""
        return self.storage.restore(target, self.clock.now())

    def is_revoked(self, target: RevocationTarget) -> bool:
        """Return whether a task was or would be revoked (see `policies.revokes`), or a function's task of now."""
        revocation, now = self.storage.revocation(target), self.clock.now()
        task = None if target.function else self.storage.get(target.key)
        if task is None:
            return revocation is not None and revocation.holds(now)
        if task.state in LIFECYCLE.of_kind(Kind.FINAL):
            return task.state == REVOKED
        of_function = self.storage.revocation(RevocationTarget(function=True, key=task.name))
        return policies.revokes(task, revocation, of_function, now)

    # Announcing ----------------------------------------------------------------------------------------------------

    def announce(self, task: Task, move: Move, requested_at: float, error: BaseException | None = None) -> bool:
        """Take a task from before a committed move to after the move, and send the signal of each state on the way.

        `requested_at`: the monotonic time before the store was asked to commit the move; `error`: the exception that
        ended the attempt, for the handlers of the first signal. Returns False, and sends no
        (further) signal, if the task was held beyond its lease meanwhile and another worker has taken it over: that
        worker announces it.
        """
        if move.lease is not None and self._lost_lease(task, move, move.lease, requested_at):
            return False
        connected, last = self.signals.connected, len(move.path) - 1
        if not connected:  # spares queues without handlers the walk
            move.apply(task)
            return True
        for step, trigger in enumerate(move.path):
            if task.state is None:
                task.state = move.states[0].name
            else:
                self._triggers[trigger](task)
            if step == last:
                move.apply(task)
            else:
                move.enter(task, step)
            signal = _SIGNAL[task.state]
            if signal in connected:  # spares the copy for signals without a handler
                # Look again: the handlers of the step before may have taken their time.
                if step and move.lease is not None and self._lost_lease(task, move, move.lease, requested_at):
                    return False
                # A copy: a handler's changes of the task do not reach the worker.
                self.signals.send(signal, task.view(), None if step else error)
        return True

    def _lost_lease(self, task: Task, move: Move, lease: float, requested_at: float) -> bool:
        """Return whether the move's lease has run out and another worker has moved the task since.

        If no worker has, the lease is prolonged before anything else: no recovery comes between.
        """
        # By both clocks: the host's clock may have been set back while this process was frozen.
        if lease > self.clock.now() and self.monotonic() < requested_at + self.lease:
            return False
        self.storage.extend([move.worker], self.clock.now() + self.lease)
        stored = self.storage.get(task.id)
        if stored is not None and (stored.seq, stored.version, stored.worker) == (task.seq, move.version, move.worker):
            return False
        log.warning("%s was taken over by another worker while this one was frozen; nothing more is announced", task)
        return True

    def release(self, tasks: Sequence[Task]) -> None:
        """Release waiting tasks that were held until they were announced."""
        held = [task for task in tasks if task.lease is not None and task.state in WAITING]
        if held:
            try:
                self.storage.release(held, self.clock.now())
            except StorageError as error:
                log.warning("%d tasks stay held a little longer: %s", len(held), error)
                copies = list(map(copy, held))
                self.deferred.append(lambda: self.storage.release(copies, self.clock.now()))
            else:
                self.flush_deferred()
            for task in held:
                task.lease = None

    def hold_until(self, state: str | None, path: tuple[str, ...], now: float) -> float | None:
        """Return until when to hold a task on this path; ``None`` if no signal of the path has a handler here."""
        connected = self.signals.connected
        if connected and any(entered.signal in connected for entered in LIFECYCLE.walk(state, path)):
            return now + self.lease
        return None


def unknown_task(task_id: str) -> UnknownTask:
    """Return the error for an id that is not in the store."""
    return UnknownTask(f"no task {task_id} in the store: was it pruned, or is this another queue's id?")
