"""What the public objects share: one queue's store, functions, signals and hooks, and the moves that it announces.

Persist, then announce: every method here that moves a task commits first, then tells its handlers, then lets the task
go for the next claim.
"""

import itertools
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from typing import Final, TypeVar, cast

import attrs

from lifecycle.clock import Clock, SystemClock, monotonic
from lifecycle.core import policies
from lifecycle.core.machine import IllegalTransition
from lifecycle.core.policies import WAITING, Move, Revocation
from lifecycle.core.serializer import Serializer
from lifecycle.core.table import CANCEL, EXECUTING, INTERRUPT, LIFECYCLE, RECOVER, REVOKED, Kind
from lifecycle.core.task import Task
from lifecycle.errors import ConfigurationError, StorageError, UnknownTask, Unserializable
from lifecycle.execution.heartbeat import Heartbeat
from lifecycle.execution.interruption import Shield, shielded
from lifecycle.execution.signals import SIGNAL_ENQUEUED, Signals
from lifecycle.moments import checked_priority, duration, utc_seconds, whole_number
from lifecycle.storage import Storage
from lifecycle.storage.base import Actor, RevocationTarget, Settlement

__all__ = ["Engine", "Function", "Hooks"]

H = TypeVar("H", bound=Callable[..., object])

log = logging.getLogger("lifecycle")

_SIGNAL: Final = {state.name: state.signal for state in LIFECYCLE.states}
_NOTHING: Final = nullcontext()


@attrs.frozen
class Function:
    """A registered function, as a worker calls it."""

    name: str
    call: Callable[..., object]
    context: bool
    """Wants the task as its argument ``task``."""
    is_async: bool
    parameters: tuple[str, ...]
    """The names of its positional parameters as its callers see them, for errors that name an argument."""
    place: int | None
    """Where among its positional arguments the task goes; ``None``: by keyword."""


class Hooks:
    """What a queue's users want done around tasks and workers, each by name, in the order of registration."""

    def __init__(self) -> None:
        self.pre_execute: dict[str, Callable[[Task], object]] = {}
        self.post_execute: dict[str, Callable[[Task, object, BaseException | None], object]] = {}
        self.on_startup: dict[str, Callable[[], object]] = {}
        self.on_shutdown: dict[str, Callable[[], object]] = {}

    def register(self, kind: str, name: str | None) -> Callable[[H], H]:
        """Decorator that adds a hook of that kind, under its own name if none is given; the same name replaces."""

        def add(hook: H) -> H:
            key = name or getattr(hook, "__qualname__", None) or repr(hook)
            # Replaced, not changed: workers may be going through the old one.
            setattr(self, kind, {**getattr(self, kind), key: hook})
            return hook

        return add

    def unregister(self, kind: str, hook: Callable[..., object] | str) -> bool:
        """Remove a hook, by itself or its name; False if it was not there."""
        hooks = getattr(self, kind)
        left = {name: known for name, known in hooks.items() if name != hook and known is not hook}
        setattr(self, kind, left)
        return len(left) < len(hooks)


class Engine:
    """One queue, without its public face."""

    def __init__(
        self,
        storage: Storage,
        clock: Clock | None,
        serializer: Serializer,
        *,
        lease: float,
        max_interruptions: int,
        intermediate_errors: bool,
    ) -> None:
        """`lease`: seconds; the rest as in `TaskQueue`."""
        self.clock: Clock = clock or storage.clock() or SystemClock()
        self.serializer = serializer
        self.use(storage)
        self.lease, self.max_interruptions, self.intermediate_errors = lease, max_interruptions, intermediate_errors
        self.signals = Signals()
        self.hooks = Hooks()
        self.functions: dict[str, Function] = {}
        self.after_enqueue: Callable[[], object] | None = None
        """Immediate mode runs what is due here."""
        self.heartbeat = Heartbeat(self._beat, lease / 3)
        self.workers = itertools.count(1)
        """Numbers for the names of workers: no two of a process have the same."""
        self.taken: dict[str, list[tuple[str, str]]] = {}
        """Task id → name and owner of the locks that its attempt has taken here and not given back."""
        self.owed: deque[Callable[[], object]] = deque()
        """What the store could not be told when that was due: that a lock is not wanted, that a task is announced. They
        would stay held as long as this process lives, which keeps alive all that it holds."""
        self.unannounced: dict[int, list[tuple[Task, Move, float]]] = {}
        """Of a connection whose transaction will be ours to end: what is to be announced then, and its `tick`."""
        self._triggers = LIFECYCLE.machine().triggers
        self.tick = monotonic
        """Seconds that only grow: for what must not be deceived by a clock that is set."""
        self.who = self._process
        """Names whoever acts, as it stands in histories."""
        self._name, self._pid = "", 0

    def use(self, storage: Storage) -> None:
        """Keep the tasks in this store from now on."""
        self.bare = storage
        self.storage = cast(Storage, Shield(storage))
        """The store as a task's body may use it: no timeout strikes in the midst of a call. Workers use it `bare`."""

    @property
    def name(self) -> str:
        """Who acts: this process."""
        return self.who()

    def _process(self) -> str:
        """The name of this process; another one after a fork."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._name = f"{socket.gethostname()}:{self._pid}:{os.urandom(3).hex()}"
        return self._name

    def pay(self) -> None:
        """Tell the store what is `owed`, if it can be used by now."""
        while self.owed:
            try:
                call = self.owed.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                call()
            except StorageError as error:
                self.owed.appendleft(call)
                log.debug("what is held for nothing is let go later: %s", error)
                return

    def _beat(self, workers: Iterable[str]) -> None:
        self.pay()
        self.bare.extend(list(workers), self.clock.now() + self.lease)

    # Tasks ---------------------------------------------------------------------------------------------------------

    @shielded
    def enqueue(self, tasks: Sequence[Task]) -> None:
        """Serialize, store and announce tasks, all or none; raises what `TaskQueue.enqueue` does."""
        now, asked = self.clock.now(), self.tick()
        for task in tasks:
            self._prepare(task)
        # Held only for those who listen: nobody else could see a later signal overtake `enqueued`.
        hold = now + self.lease if SIGNAL_ENQUEUED in self.signals.heard else None
        with self._kept(hold):
            moves = self.storage.enqueue(tasks, now, Actor(self.name, hold))
            for task, move in zip(tasks, moves, strict=True):
                self.announce(task, move, asked)
            if hold is not None:
                self.release(tasks)
        if self.after_enqueue is not None:
            self.after_enqueue()

    def _prepare(self, task: object) -> None:
        """Check what the caller could have set, and serialize the arguments; raises before anything is stored."""
        if not isinstance(task, Task):
            raise ConfigurationError(f"{task!r} is no task: enqueue what function.s(…) makes")
        checked_priority(task.priority, task)
        whole_number(task.retries, "retries", task)
        if task.eta is not None:
            task.eta = utc_seconds(task.eta, "eta", task)
        if task.expires is not None:
            task.expires = utc_seconds(task.expires, "expires", task)
        if task.timeout is not None:
            task.timeout = duration(task.timeout, "timeout", task)
        if task.state is not None:
            raise ConfigurationError(f"{task} was enqueued before: make a new one, or retry that one by its id")
        try:
            task.payload = self.serializer.dumps(task.call)
        except Unserializable as error:
            path = error.path or self._culprit(task)
            raise Unserializable(error.reason, self._argument(task, path)) from None

    def _kept(self, hold: float | None) -> AbstractContextManager[None]:
        """Prolong what this process holds while it announces it, however long its handlers take."""
        return _NOTHING if hold is None else self._keeping()  # most calls hold nothing: spares them a generator

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        name = self.name
        self.heartbeat.keep(name)
        try:
            yield
        finally:
            self.heartbeat.drop(name)

    def _culprit(self, task: Task) -> str:
        """The path of the first argument that cannot be serialized by itself, for serializers that name none."""
        parts = [(f"[0][{place}]", value) for place, value in enumerate(task.args)]
        for path, value in [*parts, *((f"[1][{name!r}]", value) for name, value in task.kwargs.items())]:
            try:
                self.serializer.dumps(value)
            except Unserializable:
                return path
        return ""

    def _argument(self, task: Task, path: str) -> str:
        """The serializer's path into ``(args, kwargs)``, in the caller's words: ``argument 'b'['when'] of add``."""
        head, _, rest = path.removeprefix("[0][").removeprefix("[1][").partition("]")
        function = self.functions.get(task.name)
        if path.startswith("[0]") and function is not None and int(head) < len(function.parameters):
            head = repr(function.parameters[int(head)])
        return f"argument {head}{rest} of {task.name}" if head else f"the arguments of {task.name}"

    def get(self, task_id: str) -> Task:
        """A copy of a stored task; raises `UnknownTask`."""
        task = self.storage.get(task_id)
        if task is None:
            raise UnknownTask(f"no task {task_id} in the store: was it pruned, or is this another queue's id?")
        return self.bind(task)

    def bind(self, task: Task) -> Task:
        """Teach a task from the store to decode its arguments."""
        task.loads = self.serializer.loads
        return task

    @shielded
    def retry(self, task_id: str) -> None:
        """An operator's second chance. Raises `UnknownTask`, or `IllegalTransition` unless it rests in an outcome."""
        while True:
            task, now, asked = self.get(task_id), self.clock.now(), self.tick()
            move = policies.retry(task, now, worker=self.name)
            move.lease = move.hold = self.hold(task.state, move.path, now)
            (took,), _ = self.storage.exchange([Settlement(task, move)], None)
            if took:  # else it moved between the two calls: look again
                break
        with self._kept(move.hold):
            self.announce(task, move, asked)
            self.release([task])
        if self.after_enqueue is not None:
            self.after_enqueue()

    @shielded
    def recover(self, now: float | None = None) -> int:
        """Put back what workers that are gone have left, and say so; returns how many tasks moved."""
        now, asked = self.clock.now() if now is None else now, self.tick()
        actor = Actor(self.name, self.hold(EXECUTING.name, (INTERRUPT, RECOVER), now))
        moved = self.storage.recover(now, actor, max_interruptions=self.max_interruptions)
        with self._kept(actor.hold if moved else None):
            for task, move in moved:
                log.warning("%s was interrupted: the lease of its worker has lapsed", task)
                self.announce(self.bind(task), move, asked)
                self.release([task])
        return len(moved)

    def abandon(self, worker: str) -> None:
        """A worker is certainly gone: let what it held lapse now, for the next `recover`."""
        self.bare.extend([worker], self.clock.now())

    @shielded
    def cancel(self, task_id: str) -> None:
        """Call a task off, wherever it is. Raises `UnknownTask`, or `IllegalTransition` if it is at rest."""
        target, revoked = RevocationTarget(function=False, key=task_id), False
        while True:
            state = self.get(task_id).state
            if state in WAITING and not revoked:
                self.revoke(target, Revocation())
                revoked = True  # but look again: it may have been started just before
            elif revoked and state in (REVOKED, *WAITING):
                return
            elif state != EXECUTING or self.storage.cancel(task_id):
                break
        if revoked:  # in vain; it is not to stop an operator's retry one day
            self.restore(target)
        if state != EXECUTING:
            allowed = LIFECYCLE.allowed(state)
            raise IllegalTransition(state=state, trigger=CANCEL, allowed=allowed, subject=f"task {task_id}")

    def revoke(self, target: RevocationTarget, revocation: Revocation) -> None:
        """See `Storage.revoke`."""
        self.storage.revoke(target, revocation, self.clock.now())

    def restore(self, target: RevocationTarget) -> bool:
        """See `Storage.restore`."""
        return self.storage.restore(target, self.clock.now())

    def is_revoked(self, target: RevocationTarget) -> bool:
        """Would it be stopped now, or was it?"""
        if not target.function:
            status = self.storage.status(target.key)
            if status is not None and status.state in LIFECYCLE.of_kind(Kind.FINAL):
                return status.state == REVOKED
        revocation = self.storage.revocation(target)
        return revocation is not None and revocation.holds(self.clock.now())

    # Announcing ----------------------------------------------------------------------------------------------------

    def announce(self, task: Task, move: Move, asked: float, error: BaseException | None = None) -> bool:
        """Take a task from before a committed move to after the move, and send the signal of each state on the way.

        `asked`: the monotonic time before the store was asked to commit the move. False, and no (further) signal, if
        the task was held beyond its lease meanwhile and another worker has taken it over: that worker announces it.
        """
        version = task.version + len(move.path)
        if self._lost(task, move, version, asked):
            return False
        heard = self.signals.heard
        for step, trigger in enumerate(move.path):
            if task.state is None:
                task.state = LIFECYCLE.initial.name
            else:
                self._triggers[trigger](task)
            move.enter(task, step)
            signal = _SIGNAL[task.state]
            if signal in heard:  # spares the copy for signals without a handler
                if step and self._lost(task, move, version, asked):  # while the handlers of the step before ran
                    return False
                # A copy: what a handler does to the task does not reach the worker.
                self.signals.send(signal, copy(task), error)
        return True

    def _lost(self, task: Task, move: Move, version: int, asked: float) -> bool:
        """Return whether the lease has run out and another worker has moved the task since."""
        # By both clocks: the host's may have been set back while this process was frozen.
        if move.lease is None or (move.lease > self.clock.now() and self.tick() < asked + self.lease):
            return False
        stored = self.storage.get(task.id)
        if stored is not None and (stored.version, stored.worker, stored.seq) == (version, move.worker, task.seq):
            return False
        log.warning("%s was taken over by another worker while this one was frozen; it says nothing more", task)
        return True

    def release(self, tasks: Sequence[Task]) -> None:
        """Let go of waiting tasks that were held until they were announced."""
        held = [task for task in tasks if task.lease is not None and task.state in WAITING]
        if held:
            try:
                self.bare.release(held, self.clock.now())
            except StorageError as error:
                log.warning("%d tasks stay held a little longer: %s", len(held), error)
                freed = list(map(copy, held))
                self.owed.append(lambda: self.bare.release(freed, self.clock.now()))
            else:
                self.pay()
            for task in held:
                task.lease = None

    def hold(self, state: str | None, path: tuple[str, ...], now: float) -> float | None:
        """Until when to hold a task on this path: not at all if nobody here listens to any of its signals."""
        heard = self.signals.heard
        if heard and any(entered.signal in heard for entered in LIFECYCLE.walk(state, path)):
            return now + self.lease
        return None
