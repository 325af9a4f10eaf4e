"""Periodic tasks on PostgreSQL: the methods of `Storage` for their states and ticks."""

from collections.abc import Callable, Collection, Sequence

from lifecycle.core.policies import Move, enqueued
from lifecycle.core.task import Task
from lifecycle.storage.base import Actor, Channel, PeriodicState, Tick
from lifecycle.storage.postgres.insertion import insert
from lifecycle.storage.postgres.server import PostgresServer
from lifecycle.storage.postgres.session import Command
from lifecycle.storage.postgres.statements import Statements
from lifecycle.storage.postgres.transaction import Transaction

__all__ = ["Periodic"]


_Notifications = Callable[[int, Collection[Channel]], list[Command]]


class Periodic:
    """The periodic tasks of one queue."""

    def __init__(self, server: PostgresServer, statements: Statements, notifications: _Notifications) -> None:
        """`notifications`: returns the commands that notify other processes of changes of a queue's channels."""
        self._server, self._statements, self._notifications = server, statements, notifications

    def tick(self, tick: Tick, tasks: Sequence[Task], now: float, actor: Actor) -> list[Move] | None:
        """Make ticks of a periodic task."""
        moves = [enqueued(task, now, *actor) for task in tasks]
        queue = self._server.queue_id
        values = queue, tick.name, tick.until, tasks[-1].id if tasks else None
        step: Command = (self._statements.first_tick, values)
        if tick.before is not None:
            step = (self._statements.next_tick, (*values, tick.before))

        def work(transaction: Transaction) -> list[int] | None:
            if not transaction.run(step)[0].row_count:
                return None
            numbers = insert(self._statements, transaction, queue, tasks, moves) if tasks else []
            transaction.commit(*self._notifications(queue, {Channel.WORK}))
            return numbers

        numbers = self._server.transact(work)
        if numbers is None:
            return None
        for task, seq in zip(tasks, numbers, strict=True):
            task.seq = seq
        self._server.notifier.notify(Channel.WORK)
        return moves

    def states(self) -> list[PeriodicState]:
        """Return the states of periodic tasks."""
        rows = self._server.read(self._statements.periodic_states, self._server.queue_id)
        return sorted(PeriodicState(*row) for row in rows)

    def pause(self, name: str, *, paused: bool, now: float) -> bool:
        """Pause or resume a periodic task."""
        statement = self._statements.pause_periodic if paused else self._statements.resume_periodic
        return bool(self._server.write((statement, (self._server.queue_id, name, now)))[0].row_count)
