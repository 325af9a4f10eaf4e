"""Enqueueing within a transaction of the application's own: on PostgreSQL, on the application's own connection."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lifecycle.core.policies import Move
from lifecycle.core.task import Task
from lifecycle.errors import ConfigurationError
from lifecycle.execution.engine import Engine
from lifecycle.execution.interruption import shielded
from lifecycle.execution.signals import SIGNAL_ENQUEUED
from lifecycle.storage.base import Actor

if TYPE_CHECKING:
    from lifecycle.storage.postgres.storage import PostgresStorage

__all__ = ["enqueue", "transaction"]


@shielded
def enqueue(engine: Engine, tasks: Sequence[Task], connection: object) -> None:
    """Enqueue tasks in the transaction that the connection is in. See `TaskQueue.enqueue`."""
    storage, now, requested_at = _postgres_storage(engine), engine.clock.now(), engine.monotonic()
    engine.prepare(tasks)
    unannounced = engine.unannounced.get(id(connection))
    # Held only if this process will know of the commit, and so can announce them and let go of them.
    held = unannounced is not None and SIGNAL_ENQUEUED in engine.signals.connected
    moves = storage.enqueue_within(
        connection, tasks, now, Actor(engine.process_name(), now + engine.lease if held else None)
    )
    if unannounced is not None:
        unannounced += [(task, move, requested_at) for task, move in zip(tasks, moves, strict=True)]


@contextmanager
def transaction(engine: Engine, connection: object) -> Iterator[None]:
    """See `TaskQueue.transaction`."""
    storage, tasks, whole = _postgres_storage(engine), list[tuple[Task, Move, float]](), False
    hold = engine.clock.now() + engine.lease if SIGNAL_ENQUEUED in engine.signals.connected else None
    with engine.keeping_leases(hold):
        with storage.transaction(connection):
            engine.unannounced[id(connection)] = tasks
            try:
                yield
                whole = True  # else it is rolled back: silently, if `psycopg.Rollback` was raised
            finally:
                del engine.unannounced[id(connection)]
        if whole:
            for task, move, requested_at in tasks:
                engine.announce(task, move, requested_at)
            engine.release([task for task, *_ in tasks])
    if whole and engine.after_enqueue is not None:
        engine.after_enqueue()


def _postgres_storage(engine: Engine) -> "PostgresStorage":
    from lifecycle.storage.postgres.storage import PostgresStorage

    storage = engine.environment.storage
    if not isinstance(storage, PostgresStorage):
        raise ConfigurationError(
            f"only a queue on PostgreSQL can take part in your transaction; this one is on {type(storage).__name__}"
        )
    return storage
