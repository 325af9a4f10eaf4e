"""A consumer: workers that run a queue's tasks, and the one who looks after them."""

import logging
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lifecycle.clock import monotonic
from lifecycle.consumer.health import Health, ReadyFile, address
from lifecycle.consumer.process_memory import used
from lifecycle.consumer.states import (
    BEGIN,
    DRAIN,
    DRAINING,
    END,
    FORCE,
    FORCING,
    INTERRUPT,
    INTERRUPTING,
    RUNNING,
    STOPPED,
    ConsumerState,
)
from lifecycle.consumer.stop_requests import StopRequests
from lifecycle.consumer.workers.base import WorkerContext, WorkerHandle, WorkerOptions
from lifecycle.consumer.workers.loop import SOON
from lifecycle.consumer.workers.types import TYPES
from lifecycle.errors import ConfigurationError, StorageError
from lifecycle.moments import duration, whole_number
from lifecycle.queue import TaskQueue
from lifecycle.storage import MemoryStorage

if TYPE_CHECKING:
    from lifecycle.consumer.health_server import HealthServer

__all__ = ["WORKER_TYPES", "Consumer"]

log = logging.getLogger("lifecycle.consumer")

WORKER_TYPES: Final = tuple(TYPES)

RESTART: Final = "renew"
"""Drain, to be started again."""
REQUESTS: Final = (DRAIN, INTERRUPT, RESTART)
"""What one may ask for, by number."""
SIGNALS: Final = {
    signal.SIGINT: REQUESTS.index(DRAIN),
    signal.SIGTERM: REQUESTS.index(INTERRUPT),
    signal.SIGHUP: REQUESTS.index(RESTART),
}
URGENT: Final = 0.5
"""Seconds that interrupted tasks have, at most, when a second signal has said: now. A third one leaves none."""
PRUNE: Final = 500
"""How many old tasks are deleted at a time."""
MISCARRIED: Final = 30.0
"""Seconds, at most, between two attempts to replace a worker that does not get to work."""


class Consumer:
    """Runs the tasks of one queue in workers of its own, until it is told to stop."""

    def __init__(
        self,
        queue: TaskQueue,
        workers: int = 1,
        worker_type: str = "thread",
        *,
        grace: float = 2.0,
        start_method: str = "spawn",
        max_tasks: int | None = None,
        max_memory: int | None = None,
        ready_file: str | Path | None = None,
        health: str | None = None,
    ) -> None:
        """Raises `ConfigurationError`.

        :param workers: how many tasks run at once.
        :param worker_type: ``"thread"``, ``"process"``, ``"greenlet"`` or ``"asyncio"``.
        :param grace: seconds that interrupted tasks have to clean up before they are put back without their consent.
        :param start_method: of worker processes: ``"spawn"`` or ``"fork"``.
        :param max_tasks: a worker process that has run so many is replaced by a new one; with workers of another kind
            the consumer itself drains, once all together have, and asks to be started again: see `run`.
        :param max_memory: the same for one that uses so many bytes.
        :param ready_file: is there, and touched at every half second, while it is ready to run tasks.
        :param health: ``"PORT"`` or ``"HOST:PORT"``: answers ``/ready`` and ``/live`` there over HTTP.
        """
        if worker_type not in TYPES:
            raise ConfigurationError(f"worker_type={worker_type!r}: there are {', '.join(WORKER_TYPES)}")
        whole_number(workers, "workers", at_least=1)
        for name, limit in ("max_tasks", max_tasks), ("max_memory", max_memory):
            if limit is not None:
                whole_number(limit, name, at_least=1)
        self.queue, self._engine = queue, queue.engine
        self._terms = WorkerOptions(duration(grace, "grace"), workers, start_method, max_tasks, max_memory)
        self._kind = TYPES[worker_type]
        self._kind.check(queue, self._terms)
        self._ready_file = None if ready_file is None else Path(ready_file)
        self._address = None if health is None else address(health)
        self._tick = min(0.5, self._engine.lease / 4)
        self._engine.clock.on_step(self._look_again)
        self._life: ConsumerState | None = None
        self._renew = False
        self._telling = threading.Lock()
        self._reset()

    def _reset(self) -> None:
        # Those of one run: a thread that outlives it, stuck in a task, must not take up work in the next.
        self._post = WorkerContext(self.queue, self._terms)
        self._signs: list[ReadyFile | HealthServer] = []
        self._crew: list[WorkerHandle] = []
        self._dead: list[WorkerHandle] = []
        self._attendant: threading.Thread | None = None
        self._deadline = 0.0
        self._patience = self._rehire = 0.0
        self._leaving = threading.Event()
        self._ended = threading.Event()

    # ConsumerState ----------------------------------------------------------------------------------------------------------

    def run(self) -> bool:
        """Run until stopped, by `stop` or, in a program's main thread, by a signal.

        ``SIGINT`` finishes what runs; ``SIGTERM`` interrupts it: the tasks are put back, and the next consumer runs
        them. A second signal means now. ``SIGHUP`` finishes what runs, too, and asks for a new start.

        Returns whether it is to be started again, with the code that is there then: because of a ``SIGHUP``, of
        `max_tasks` or of `max_memory`. The command line does it; any other program does it itself.
        """
        self._open()
        with self._bell.signals(SIGNALS):
            self._begin()
            self._attend()
        return self._renew

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
        ended, post = self._ended, self._post  # before the look: they are others once the run is over
        if self.state not in (None, STOPPED):
            self._bell.ring(REQUESTS.index(DRAIN if graceful else INTERRUPT))
            if threading.current_thread() is not self._attendant and not post.inside:  # they cannot wait for themselves
                ended.wait()

    @property
    def state(self) -> str | None:
        """Where it is in its life (`lifecycle.consumer.states.CONSUMER_LIFECYCLE`); ``None``: it was never started."""
        return None if self._life is None else self._life.state

    @property
    def health(self) -> Health:
        """How it is."""
        return Health(self.state, not self._post.away, sum(hand.is_alive() for hand in self._crew))

    def _open(self) -> None:
        with self._telling:
            if self.state not in (None, STOPPED):
                raise ConfigurationError("this consumer runs already")
            self._bell = StopRequests()
            self._life = ConsumerState()
            self._renew = False
        try:
            if self._ready_file is not None:
                self._signs.append(ReadyFile(self._ready_file))
            if self._address is not None:
                from lifecycle.consumer.health_server import HealthServer

                self._signs.append(HealthServer(self._address))
            self._engine.storage.next_due()  # a store that cannot be used is better reported before anything runs
        except BaseException:
            self._close()
            raise

    def _close(self) -> None:
        ended = self._ended
        self._post.stopping.set()
        self._leaving.set()
        with self._telling:  # nobody begins another life before this one is over
            self._bell.close()
            for sign in self._signs:
                sign.close()
            self._go(END)  # before there is another event to wait for: see `stop`
            self._reset()
        ended.set()

    def _go(self, trigger: str) -> None:
        if self._life is not None:
            self._life.go(trigger)

    def _begin(self) -> None:
        engine, workers = self._engine, self._terms.workers
        functions = ", ".join(sorted(engine.functions)) or "none: was the module that declares them imported?"
        log.info("consumer %s: %d workers on queue %r; tasks: %s", engine.name, workers, self.queue.name, functions)
        if isinstance(engine.bare, MemoryStorage):
            log.warning("the queue is in this process's memory: nothing that other processes enqueue will come here")
        try:
            for _ in range(self._kind.hands(self._terms)):
                self._hire()
            for chore in self._look, self._call_off, self._keep_house:
                # In threads of their own, since they call handlers: a slow one must not hold up the other, or a stop.
                threading.Thread(target=self._do, args=(chore,), name="lifecycle-housekeeping", daemon=True).start()
        except BaseException:
            self._close()
            raise
        self._go(BEGIN)

    def _hire(self) -> None:
        hand = self._kind.hire(self._post, f"{self._engine.name}/{next(self._engine.workers)}")
        self._crew.append(hand)
        hand.start()

    # Looking after the workers -------------------------------------------------------------------------------------

    def _attend(self) -> None:
        """Heed requests, and replace who has died, until the last worker has gone home."""
        self._attendant = threading.current_thread()
        try:
            while not self._over():
                for sign in self._signs:
                    sign.report(self.health)
                for request in self._bell.heard(self._tick if self.state == RUNNING else SOON):
                    self._heed(REQUESTS[request])
                if self.state in (RUNNING, DRAINING):
                    self._replace()
                if self.state == RUNNING and self._kind.renews_all and self._spent():
                    self._heed(RESTART)
        finally:
            for hand in self._crew:
                hand.dismiss()
            self._close()
            log.info("consumer %s has stopped", self._engine.name)

    def _heed(self, request: str) -> None:
        post, again = self._post, self.state == FORCING
        if request == RESTART and self.state != RUNNING:
            return  # it stops already
        self._renew = request == RESTART
        if self.state == RUNNING:
            self._go(DRAIN if self._renew else request)
        else:
            self._go(FORCE)  # asked again: now
        post.stopping.set()
        for hand in self._crew:
            hand.drain()
        log.info("consumer %s: %s", self._engine.name, _SAYING[self.state or RUNNING])  # true from here on
        self._engine.storage.wake()
        if self.state != DRAINING:
            post.urgent.set()
            self._leaving.set()
            grace = self._terms.grace
            self._deadline = monotonic() + (
                grace if self.state == INTERRUPTING else 0.0 if again else min(grace, URGENT)
            )
            for hand in self._crew:
                hand.interrupt()

    def _over(self) -> bool:
        if self.state == RUNNING:
            return False
        alive = [hand for hand in self._crew if hand.is_alive()]
        if self.state != DRAINING and monotonic() >= self._deadline:
            for hand in alive:
                self._quietly(hand.put_back, f"what {hand.name} runs is put back when its lease ends")
        elif alive:
            return False
        self._dead.extend(hand for hand in self._crew if not hand.is_alive() and not hand.retired)
        self._quietly(self._recover, "what workers that have died have left is put back when its lease ends")
        return True

    def _quietly(self, act: Callable[[], object], else_: str) -> None:
        try:
            act()
        except StorageError as error:
            log.warning("%s: %s", else_, error)
        except BaseException:
            log.exception("consumer %s: a handler raised; it goes on", self._engine.name)

    def _replace(self) -> None:
        for hand in [hand for hand in self._crew if not hand.is_alive()]:
            self._crew.remove(hand)
            self._post.found(hand)
            hand.dismiss()
            # One that cannot even begin is not tried over and over, as fast as can be.
            self._patience = 0.0 if hand.ready else min(max(2 * self._patience, self._tick), MISCARRIED)
            self._rehire = monotonic() + self._patience
            if not hand.retired:
                self._dead.append(hand)
            if self.state == RUNNING:
                if hand.retired:
                    log.info("worker %s has run as many tasks as it shall; another takes its place", hand.name)
                elif hand.ready:
                    log.error("worker %s has died; another takes its place, and its task is put back", hand.name)
                else:
                    log.error("worker %s could not begin; another tries it in %g s", hand.name, self._patience)
        if self.state == RUNNING and len(self._crew) < self._kind.hands(self._terms) and monotonic() >= self._rehire:
            self._hire()

    def _spent(self) -> bool:
        """Is it time for a new start?"""
        terms, ran = self._terms, sum(hand.ran for hand in self._crew)
        # Not before anything has run: a limit that is too low would have it start for ever.
        return ran > 0 and (
            (terms.max_tasks is not None and ran >= terms.max_tasks)
            or (terms.max_memory is not None and used() >= terms.max_memory)
        )

    # Chores --------------------------------------------------------------------------------------------------------

    def _do(self, chore: Callable[[], None]) -> None:
        """Do a chore every now and then, until nothing runs any more or what runs is to be put back."""
        leaving, post = self._leaving, self._post
        while not leaving.is_set():
            try:
                chore()
            except StorageError as error:
                post.missing(chore, error)
            except BaseException:  # of a handler: it may end its worker, but not who looks after all
                log.exception("consumer %s: a handler raised; it goes on", self._engine.name)
            else:
                post.found(chore)
            leaving.wait(self._tick)

    def _look(self) -> None:
        """See to it that nothing waits in vain for a worker that is held up."""
        for hand in list(self._crew):
            hand.look()

    def _call_off(self) -> None:
        """Tell workers that what they run was called off. What is quickly done is not asked about."""
        busy = [hand for hand in self._crew if hand.busy]
        if busy:
            for task_id in self._engine.bare.canceling([hand.name for hand in busy]):
                for hand in busy:
                    hand.cancel(task_id)

    def _keep_house(self) -> None:
        """Recover what others have left, and delete what is old."""
        self._recover()
        if self.queue.retention is not None:
            self._engine.storage.prune(self._engine.clock.now() - self.queue.retention, PRUNE)

    def _recover(self) -> None:
        dead = list(self._dead)
        for hand in dead:
            hand.bury()
        self._engine.recover()
        for hand in dead:
            with suppress(ValueError):  # done by another thread meanwhile
                self._dead.remove(hand)

    def _look_again(self) -> None:
        self._engine.storage.wake()


_SAYING: Final[dict[str, str]] = {
    DRAINING: "stopping; what runs is finished first (again: it is put back now)",
    INTERRUPTING: "stopping; what runs is interrupted and put back",
    FORCING: "stopping now",
}
