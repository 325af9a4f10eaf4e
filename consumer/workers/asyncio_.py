"""Workers that run many tasks at once, in an event loop."""

import logging
import threading

from lifecycle.consumer.workers.base import AWAY, WorkerContext, call_all
from lifecycle.consumer.workers.loop import IDLE, SOON, STUCK
from lifecycle.errors import StorageError
from lifecycle.execution.desk import Desk
from lifecycle.storage.base import Channel

__all__ = ["AsyncioHandle"]

log = logging.getLogger("lifecycle.consumer")


class AsyncioHandle:
    """A loop, and the thread that brings it its tasks and settles their outcomes."""

    def __init__(self, post: WorkerContext, name: str) -> None:
        self.name, self._post = name, post
        self.ready = self.retired = False
        self._desk = Desk(post.engine, name, post.terms.workers, self._wait_for_store, post.enter)
        self._thread = threading.Thread(target=self._run, name=f"lifecycle-{name.rpartition('/')[2]}", daemon=True)

    def start(self) -> None:
        """See `WorkerHandle.start`."""
        self._thread.start()

    def is_alive(self) -> bool:
        """See `WorkerHandle.is_alive`."""
        return self._thread.is_alive()

    @property
    def ran(self) -> int:
        """See `WorkerHandle.ran`."""
        return self._desk.ran

    @property
    def busy(self) -> bool:
        """See `WorkerHandle.busy`."""
        return self._desk.longest > STUCK

    def cancel(self, task_id: str) -> None:
        """See `WorkerHandle.cancel`."""
        self._desk.cancel(task_id)

    def drain(self) -> None:
        """See `WorkerHandle.drain`. Its post says all; it is awakened, should it wait for what runs."""

    def interrupt(self) -> None:
        """See `WorkerHandle.interrupt`."""
        self._desk.interrupt()

    def put_back(self) -> None:
        """See `WorkerHandle.put_back`."""
        self._desk.put_back()

    def look(self) -> None:
        """See `WorkerHandle.look`."""
        desk = self._desk
        if desk.burdened and desk.engine.tick() - desk.since > STUCK:
            desk.relieve()

    def dismiss(self) -> None:
        """See `WorkerHandle.dismiss`. What is stuck in a body cannot be ended."""

    def bury(self) -> None:
        """See `WorkerHandle.bury`."""
        self._post.engine.abandon(self.name)

    def _run(self) -> None:
        post, desk, engine = self._post, self._desk, self._post.engine
        engine.heartbeat.keep(self.name)
        post.enter()
        desk.crowd.start()
        try:
            call_all(engine.hooks.on_startup, "on_startup", desk.crowd.call)
            self.ready = True
            while self._go_on() or not desk.idle:
                self._turn()
        except StorageError as error:  # and no time to wait for it: what was not stored is put back by its lease
            log.warning("worker %s ends without having stored all: %s", self.name, error)
        except BaseException:
            log.exception("worker %s", self.name)
        finally:
            engine.heartbeat.drop(self.name)
            call_all(engine.hooks.on_shutdown, "on_shutdown", desk.crowd.call)
            desk.crowd.close()

    def _turn(self) -> None:
        """Do what there is to do, then wait for more."""
        post, desk, storage = self._post, self._desk, self._post.engine.bare
        try:
            generation = storage.generation(Channel.WORK)
            if desk.turn(self._go_on):
                return
            post.found(self)
            if self._go_on():
                due = storage.next_due()
                left = IDLE if due is None else due - post.engine.clock.now()
                desk.rest(generation, min(max(left, SOON), IDLE))
            elif not desk.idle:
                desk.rest(None, IDLE)
        except StorageError as error:
            if post.urgent.is_set():
                raise
            post.missing(self, error)
            post.stopping.wait(AWAY)

    def _go_on(self) -> bool:
        return not self._post.stopping.is_set()

    def _wait_for_store(self, error: StorageError) -> bool:
        self._post.missing(self, error)
        self._post.urgent.wait(AWAY)
        return not self._post.urgent.is_set()
