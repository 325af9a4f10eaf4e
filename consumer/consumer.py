"""A consumer: workers that run a queue's tasks, and the one who looks after them."""

import logging
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from consumer.life import (
    BEGIN,
    DRAIN,
    DRAINING,
    END,
    HURRY,
    HURRYING,
    INTERRUPT,
    INTERRUPTING,
    RUNNING,
    STOPPED,
    Life,
)
from lifecycle import ConfigurationError, StorageError, TaskQueue
from lifecycle.clock import monotonic
from lifecycle.moments import duration
from lifecycle.storage import MemoryStorage
from lifecycle.storage.base import Channel
from lifecycle.worker import Worker

__all__ = ["WORKER_TYPES", "Consumer"]

log = logging.getLogger("lifecycle.consumer")

WORKER_TYPES: Final = ("thread",)

IDLE: Final = 1.0
"""Seconds after which an idle worker looks anyway, should the host's clock have been set."""
SOON: Final = 0.01
"""The least that it waits: what was due a moment ago may be held, or another worker's by now."""
ASKED: Final = {128: DRAIN, 129: INTERRUPT}
"""How one asks it to stop: bytes that are no numbers of signals, and what they ask for."""
STUCK: Final = 0.25
"""Seconds after which a worker that took several tasks at once is relieved of those that it has not begun, and after
which one is asked about the task that it runs: has that been called off?"""
URGENT: Final = 0.5
"""Seconds that interrupted tasks have, at most, when a second signal has said: now. A third one leaves none."""
AWAY: Final = 0.2
"""Seconds between two attempts to reach a store that cannot be used."""
PRUNE: Final = 500
"""How many old tasks are deleted at a time."""


class Consumer:
    """Runs the tasks of one queue in workers of its own, until it is told to stop."""

    def __init__(self, queue: TaskQueue, workers: int = 1, worker_type: str = "thread", *, grace: float = 2.0) -> None:
        """Raises `ConfigurationError`.

        :param workers: how many tasks run at once.
        :param worker_type: ``"thread"``.
        :param grace: seconds that interrupted tasks have to clean up before they are put back without their consent.
        """
        if worker_type not in WORKER_TYPES:
            raise ConfigurationError(f"worker_type={worker_type!r}: there are {', '.join(WORKER_TYPES)}")
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
            raise ConfigurationError(f"workers={workers!r}: it takes a whole number, 1 or more")
        self.queue, self._engine = queue, queue.engine
        self._count, self._grace = workers, duration(grace, "grace")
        self._tick = min(0.5, self._engine.lease / 4)
        self._engine.clock.on_step(self._look_again)
        self._life: Life | None = None
        self._telling = threading.Lock()
        self._reset()

    def _reset(self) -> None:
        self._crew: list[_Hand] = []
        self._attendant: threading.Thread | None = None
        self._deadline = 0.0
        self._away: set[object] = set()
        # Those of one run: a thread that outlives it, stuck in a task, must not take up work in the next.
        self._baton = threading.Lock()
        self._stopping = threading.Event()
        self._urgent = threading.Event()
        self._leaving = threading.Event()
        self._ended = threading.Event()

    # Life ----------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run until stopped, by `stop` or, in a program's main thread, by a signal.

        ``SIGINT`` finishes what runs; ``SIGTERM`` interrupts it: the tasks are put back, and the next consumer runs
        them. A second signal means now.
        """
        self._open()
        with self._signals():
            self._begin()
            self._attend()

    def start(self) -> None:
        """The same in the background: returns at once; `stop` ends it."""
        self._open()
        self._begin()
        threading.Thread(target=self._attend, name="lifecycle-consumer", daemon=True).start()

    def stop(self, graceful: bool = True) -> None:
        """Stop, and return when that is done. `graceful` finishes what runs, else it is interrupted and put back.

        A task that cannot be interrupted runs on in its thread; its outcome will be refused. A consumer that does not
        run is left alone; one that was stopped can be started again.
        """
        ended = self._ended  # before the look: it is another one once the run is over
        if self.state not in (None, STOPPED):
            self._ring(DRAIN if graceful else INTERRUPT)
            if threading.current_thread() not in (self._attendant, *self._crew):  # they cannot wait for themselves
                ended.wait()

    @property
    def state(self) -> str | None:
        """Where it is in its life (`consumer.life.LIFE`); ``None``: it was never started."""
        return None if self._life is None else self._life.state

    def _open(self) -> None:
        with self._telling:
            if self.state not in (None, STOPPED):
                raise ConfigurationError("this consumer runs already")
            # Requests come through a socket: a signal handler may not touch a lock that its own thread may hold.
            self._bell, self._ringer = socket.socketpair()
            self._ringer.setblocking(False)
            self._bell.setblocking(False)
            self._life = Life()
        try:
            self._engine.storage.next_due()  # a store that cannot be used is better reported before anything runs
        except BaseException:
            self._close()
            raise

    def _close(self) -> None:
        ended = self._ended
        self._stopping.set()
        self._leaving.set()
        with self._telling:  # nobody begins another life before this one is over
            self._bell.close()
            self._ringer.close()
            self._go(END)  # before there is another event to wait for: see `stop`
            self._reset()
        ended.set()

    def _go(self, trigger: str) -> None:
        if self._life is not None:
            self._life.go(trigger)

    def _begin(self) -> None:
        engine = self._engine
        functions = ", ".join(sorted(engine.functions)) or "none: was the module that declares them imported?"
        log.info("consumer %s: %d workers on queue %r; tasks: %s", engine.name, self._count, self.queue.name, functions)
        if isinstance(engine.bare, MemoryStorage):
            log.warning("the queue is in this process's memory: nothing that other processes enqueue will come here")
        try:
            for _ in range(self._count):
                self._hire()
            for chore in self._relieve, self._call_off, self._keep_house:
                # In threads of their own, since they call handlers: a slow one must not hold up the other, or a stop.
                threading.Thread(target=self._do, args=(chore,), name="lifecycle-housekeeping", daemon=True).start()
        except BaseException:
            self._close()
            raise
        self._go(BEGIN)

    def _hire(self) -> None:
        hand = _Hand(self, f"{self._engine.name}/{next(self._engine.workers)}")
        self._crew.append(hand)
        hand.start()

    def _ring(self, request: str) -> None:
        try:
            self._ringer.send(bytes(number for number, asked in ASKED.items() if asked == request))
        except OSError:  # stopped already, or so many requests that one more says nothing new
            log.debug("a request to stop was not needed any more")

    @contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        asked = {signal.SIGINT: DRAIN, signal.SIGTERM: INTERRUPT}

        def ask(number: int, frame: FrameType | None) -> None:
            del frame
            self._ring(asked[signal.Signals(number)])

        before = {number: signal.signal(number, ask) for number in asked}
        # Without it a signal would be noticed only when select() returns by itself.
        descriptor = signal.set_wakeup_fd(self._ringer.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(descriptor)
            for number, handler in before.items():
                signal.signal(number, handler)

    # Looking after the workers -------------------------------------------------------------------------------------

    def _attend(self) -> None:
        """Heed requests, and replace who has died, until the last worker has gone home."""
        self._attendant = threading.current_thread()
        try:
            while not self._over():
                for request in self._requests(self._tick if self.state == RUNNING else SOON):
                    self._heed(request)
                if self.state == RUNNING:
                    self._replace()
        finally:
            self._close()
            log.info("consumer %s has stopped", self._engine.name)

    def _do(self, chore: Callable[[list["_Hand"]], None]) -> None:
        """Do a chore every now and then, until nothing runs any more or what runs is to be put back."""
        leaving, crew = self._leaving, self._crew
        while not leaving.is_set():
            try:
                chore(list(crew))
            except StorageError as error:
                self._missing(chore, error)
            except BaseException:  # of a handler: it may end its worker, but not who looks after all
                log.exception("consumer %s: a handler raised; it goes on", self._engine.name)
            else:
                self._found(chore)
            leaving.wait(self._tick)

    def _requests(self, timeout: float) -> list[str]:
        ready, _, _ = select.select([self._bell], [], [], timeout)
        asked = self._bell.recv(4096) if ready else b""
        # The interpreter writes the signal's own number there, too, to end the wait; what it means came separately.
        return [ASKED[number] for number in asked if number in ASKED]

    def _heed(self, request: str) -> None:
        again = self.state == HURRYING
        self._go(request if self.state == RUNNING else HURRY)  # asked again: now
        log.info("consumer %s: %s", self._engine.name, _SAYING[self.state or RUNNING])
        self._stopping.set()
        self._engine.storage.wake()
        if self.state != DRAINING:
            self._urgent.set()
            self._leaving.set()
            urgent = 0.0 if again else min(self._grace, URGENT)
            self._deadline = monotonic() + (self._grace if self.state == INTERRUPTING else urgent)
            for hand in self._crew:
                hand.worker.interrupt()

    def _over(self) -> bool:
        if self.state == RUNNING:
            return False
        alive = [hand for hand in self._crew if hand.is_alive()]
        if self.state != DRAINING and monotonic() >= self._deadline:
            for hand in alive:
                try:
                    hand.worker.put_back()
                except StorageError as error:
                    log.warning("what %s runs is put back when its lease ends: %s", hand.worker.name, error)
                except BaseException:
                    log.exception("consumer %s: a handler raised; it goes on", self._engine.name)
            return True
        return not alive

    def _replace(self) -> None:
        for hand in [hand for hand in self._crew if not hand.is_alive()]:
            log.error("worker %s has died; another takes its place, and its task is put back", hand.worker.name)
            self._crew.remove(hand)
            self._found(hand)
            self._hire()

    def _relieve(self, crew: list["_Hand"]) -> None:
        """A worker that took several quick tasks, and is stuck in one of them, must not keep the others waiting."""
        for hand in crew:
            if hand.worker.burdened and self._engine.tick() - hand.worker.since > STUCK:
                hand.worker.relieve()

    def _call_off(self, crew: list["_Hand"]) -> None:
        """Tell workers that what they run was called off. What is quickly done is not asked about."""
        now = self._engine.tick()
        busy = [hand.worker for hand in crew if hand.worker.running is not None and now - hand.worker.since > STUCK]
        if busy:
            for task_id in self._engine.bare.canceling([worker.name for worker in busy]):
                for worker in busy:
                    worker.cancel(task_id)

    def _keep_house(self, crew: list["_Hand"]) -> None:
        """Recover what others have left, and delete what is old."""
        del crew
        engine = self._engine
        engine.recover()
        if self.queue.retention is not None:
            engine.storage.prune(engine.clock.now() - self.queue.retention, PRUNE)

    def _look_again(self) -> None:
        self._engine.storage.wake()

    # A store that is away ------------------------------------------------------------------------------------------

    def _missing(self, who: object, error: StorageError) -> None:
        with self._telling:
            if not self._away:
                log.error("the store cannot be used, its tasks wait and this consumer tries again: %s", error)
            self._away.add(who)

    def _found(self, who: object) -> None:
        if self._away:  # spares the lock
            with self._telling:
                if who in self._away:
                    self._away.discard(who)
                    if not self._away:
                        log.info("the store can be used again")


_SAYING: Final[dict[str, str]] = {
    DRAINING: "stopping; what runs is finished first (again: it is put back now)",
    INTERRUPTING: "stopping; what runs is interrupted and put back",
    HURRYING: "stopping now",
}


class _Hand(threading.Thread):
    """A thread and its worker."""

    def __init__(self, consumer: Consumer, name: str) -> None:
        # A daemon: a task that cannot be interrupted must not keep the process from ending.
        super().__init__(name=f"lifecycle-{name.rpartition('/')[2]}", daemon=True)
        self.worker = Worker(consumer._engine, name, self._wait_for_store)
        self._consumer, self._baton = consumer, consumer._baton
        self._stopping, self._urgent = consumer._stopping, consumer._urgent

    def run(self) -> None:
        """Work until told to stop; a failure of the worker itself is logged, and ends it."""
        engine, worker = self._consumer._engine, self.worker
        engine.heart.keep(worker.name)
        try:
            _call_all(engine.hooks.on_startup, "on_startup")
            while self._go_on():
                self._turn()
        except BaseException:
            log.exception("worker %s", worker.name)
        finally:
            engine.heart.drop(worker.name)
            _call_all(engine.hooks.on_shutdown, "on_shutdown")
            worker.attempts.close()

    def _turn(self) -> None:
        """Run what there is, then wait for more."""
        consumer, storage = self._consumer, self._consumer._engine.storage
        # Taken before looking for work: what comes between the look and the wait ends the wait at once.
        stamp = storage.stamp(Channel.WORK)
        try:
            self.worker.work(self._go_on)
            consumer._found(self)
            # One idle worker watches the store. When it goes to look, the next one takes over, and so on: a single task
            # wakes one worker, not all.
            with self._baton:
                if self._go_on():
                    due = storage.next_due()
                    left = IDLE if due is None else due - consumer._engine.clock.now()
                    storage.wait(Channel.WORK, stamp, min(max(left, SOON), IDLE))
        except StorageError as error:
            consumer._missing(self, error)
            self._stopping.wait(AWAY)

    def _go_on(self) -> bool:
        return not self._stopping.is_set()

    def _wait_for_store(self, error: StorageError) -> bool:
        """An outcome could not be stored: keep it, and try again until told to stop at once."""
        self._consumer._missing(self, error)
        self._urgent.wait(AWAY)
        return not self._urgent.is_set()


def _call_all(hooks: dict[str, Callable[[], object]], kind: str) -> None:
    for name, hook in hooks.items():
        try:
            hook()
        except Exception:
            log.exception("%s hook %s raised; the worker goes on", kind, name)
