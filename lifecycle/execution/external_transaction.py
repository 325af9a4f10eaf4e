"""Enqueueing within a transaction of the application, on the application's own connection. Only on PostgreSQL."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lifecycle.core.policies import Move
from lifecycle.core.task import Task
from lifecycle.errors import ConfigurationError
from lifecycle.execution.engine import Engine
from lifecycle.execution.interruption import shielded
from lifecycle.execution.new_tasks import prepare
from lifecycle.storage.base import Actor

if TYPE_CHECKING:
    from lifecycle.storage.postgres.storage import PostgresStorage

__all__ = ["enqueue", "transaction"]


@shielded
def enqueue(engine: Engine, tasks: Sequence[Task], connection: object) -> None:
    """Enqueue tasks within the connection's open transaction.

    The tasks are announced only in a `transaction` of this module: of any other transaction, this process does not
    learn whether it was committed. Raises the errors of `TaskQueue.enqueue`.
    """
    storage, now, requested_at = _postgres_storage(engine), engine.clock.now(), engine.monotonic()
    prepare(tasks, now, engine.serializer, engine.functions, engine.max_bytes)
    unannounced = engine.unannounced.get(id(connection))
    # Held only if this process learns of the commit, and then announces and releases the tasks.
    is_held = unannounced is not None and engine.signals.announces_births
    actor = Actor(engine.process_name(), now + engine.lease if is_held else None)
    moves = storage.enqueue_within(connection, tasks, now, actor)
    if unannounced is not None:
        unannounced += [(task, move, requested_at) for task, move in zip(tasks, moves, strict=True)]


@contextmanager
def transaction(engine: Engine, connection: object) -> Iterator[None]:
    """Run a block within a transaction of the connection; announce its tasks after the commit."""
    storage, committed = _postgres_storage(engine), False
    unannounced: list[tuple[Task, Move, float]] = []
    hold_until = engine.clock.now() + engine.lease if engine.signals.announces_births else None
    with engine.keeping_leases(hold_until):
        with storage.transaction(connection):
            engine.unannounced[id(connection)] = unannounced
            try:
                yield
                committed = True  # stays False after any exception: `psycopg.Rollback` ends the block silently
            finally:
                del engine.unannounced[id(connection)]
        if committed:
            for task, move, requested_at in unannounced:
                engine.announce(task, move, requested_at)
            engine.release([task for task, *_ in unannounced])
    if committed and engine.after_enqueue is not None:
        engine.after_enqueue()


def _postgres_storage(engine: Engine) -> "PostgresStorage":
    from lifecycle.storage.postgres.storage import PostgresStorage

    storage = engine.environment.storage
    if not isinstance(storage, PostgresStorage):
        raise ConfigurationError(
            f"connection: only a queue on PostgreSQL can take part in your transaction; this queue uses "
            f"{type(storage).__name__}: leave out the connection"
        )
    return storage
