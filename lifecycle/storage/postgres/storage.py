"""The PostgreSQL adapter: a schema in a database, any number of processes on any number of hosts."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from operator import attrgetter
from typing import Final, cast

from lifecycle.clock import Clock, RemoteClock
from lifecycle.core.policies import AT_REST, MAX_INTERRUPTIONS, WAITING, Move, Revocation, enqueued, visibility
from lifecycle.core.table import REVOKED
from lifecycle.core.task import Record, Task, read_history
from lifecycle.errors import ConfigurationError, StorageError
from lifecycle.storage.base import (
    NO_LIMITS,
    Actor,
    Channel,
    Claim,
    ClaimRequest,
    Lock,
    RevocationTarget,
    Settlement,
    TaskStatus,
)
from lifecycle.storage.claims import Visibility, visibility_after
from lifecycle.storage.postgres.errors import OutcomeUnknown
from lifecycle.storage.postgres.exchange import Exchange, Row
from lifecycle.storage.postgres.external_transaction import OTHER_DATABASE, begun, joined
from lifecycle.storage.postgres.holds import Recovery, recover_lapsed, release_held
from lifecycle.storage.postgres.in_doubt import ExchangesInDoubt
from lifecycle.storage.postgres.insertion import check_ids, fits_one_statement, insert
from lifecycle.storage.postgres.listener import channel_name
from lifecycle.storage.postgres.periodic import Periodic
from lifecycle.storage.postgres.rows import revocation_from_columns, task_from_row
from lifecycle.storage.postgres.server import PostgresServer
from lifecycle.storage.postgres.session import Command, text_array
from lifecycle.storage.postgres.statements import Statements
from lifecycle.storage.postgres.summary import Summary
from lifecycle.storage.postgres.transaction import Transaction
from lifecycle.storage.postgres.url import ConnectionSettings

__all__ = ["PostgresStorage"]

_UNIQUE_VIOLATION: Final = "23505"


class PostgresStorage:
    """One queue in a schema of a PostgreSQL database; the first call checks the schema, or creates it."""

    def __init__(self, settings: ConnectionSettings, queue: str = "default") -> None:
        """`settings`: see `lifecycle.storage.postgres.url.parsed`."""
        self._statements = Statements(settings.schema)
        self._server = PostgresServer(
            settings.parameters, queue, self._statements, migrate=settings.migrate, pool_size=settings.pool_size
        )
        self._name = queue
        self.location = settings.location
        self._summary = Summary(self._server)
        self._in_doubt = ExchangesInDoubt(self._statements)
        periodic = Periodic(self._server, self._statements, self._notifications)
        self.tick, self.periodic_states, self.pause_periodic = periodic.tick, periodic.states, periodic.pause
        notifier = self._server.notifier
        self.generation, self.wait, self.wake = notifier.generation, notifier.wait, notifier.wake

    def migrate(self) -> tuple[int, int]:
        """Bring the schema up to date; return its version before (0: it did not exist) and after."""
        return self._server.migrate()

    # Moves ---------------------------------------------------------------------------------------------------------

    def enqueue(self, tasks: Sequence[Task], now: float, actor: Actor) -> list[Move]:
        """Insert new tasks, all or none."""
        check_ids(tasks)
        moves = [enqueued(task, now, *actor) for task in tasks]
        queue = self._server.queue_id
        notifications = self._notifications(queue, {Channel.WORK})

        def work(transaction: Transaction) -> list[int]:
            numbers = insert(self._statements, transaction, queue, tasks, moves)
            transaction.commit(*notifications)
            return numbers

        numbers: list[int] = []
        if fits_one_statement(tasks):  # in one round trip
            places = [visibility_after(task, move, None) for task, move in zip(tasks, moves, strict=True)]
            try:
                inserted, *_ = self._server.write(
                    self._statements.insert(queue, tasks, moves, places, if_new=True), *notifications
                )
                numbers = [seq for (seq,) in inserted.rows]
            except StorageError as error:
                if getattr(error.__cause__, "sqlstate", None) != _UNIQUE_VIOLATION:
                    raise
        if len(numbers) < len(tasks):  # an id is taken, or was revoked in advance, or there are many tasks
            numbers = self._server.transact(work)
        _set_numbers(tasks, numbers)
        self._server.notifier.notify(Channel.WORK)
        return moves

    def enqueue_within(self, connection: object, tasks: Sequence[Task], now: float, actor: Actor) -> list[Move]:
        """Insert new tasks within a transaction of the caller. `connection`: its `psycopg.Connection`.

        Other processes see the tasks once the transaction commits. Raises `ConfigurationError` if the connection
        cannot be used, or leads to a database without this queue. An error leaves the transaction as it was.
        """
        check_ids(tasks)
        moves = [enqueued(task, now, *actor) for task in tasks]
        self._server.queue_id  # noqa: B018 -- creates the schema, if need be, before the other connection needs it
        with joined(connection) as transaction:
            (found,) = transaction.run((self._statements.queue, (self._name,)))
            if not found.rows:
                raise ConfigurationError(OTHER_DATABASE)
            ((queue,),) = found.rows
            numbers = insert(self._statements, transaction, queue, tasks, moves)
            # Not sent by a connection of the pool, so that the listener of this process receives it, too.
            name = channel_name(self._server.schema, queue, Channel.WORK)
            transaction.run((self._statements.notify_all, (name,)))
        _set_numbers(tasks, numbers)
        return moves

    def transaction(self, connection: object) -> AbstractContextManager[object]:
        """Begin a transaction on a `psycopg.Connection` that is in none. Raises `ConfigurationError`."""
        return begun(connection)

    def exchange(self, done: Sequence[Settlement], request: ClaimRequest | None) -> tuple[list[bool], list[Claim]]:
        """Settle attempts and claim tasks, in one transaction."""
        if not done and request is None:
            return [], []
        queue = self._server.queue_id
        if self._in_doubt:
            resolved = self._server.transact(
                lambda transaction: self._in_doubt.resolve(transaction, queue, done, request)
            )
            if resolved is not None:
                done, request = resolved.open, None if resolved.claims else request
                took, claims = self._exchange(queue, done, request)
                resolved.confirm()
                return resolved.merged(took), [*resolved.claims, *claims]
        return self._exchange(queue, done, request)

    def _exchange(
        self, queue: int, done: Sequence[Settlement], request: ClaimRequest | None
    ) -> tuple[list[bool], list[Claim]]:
        last_attempt: list[Exchange] = []

        def work(transaction: Transaction) -> Exchange:
            attempt = Exchange(self._statements, queue, transaction)
            last_attempt[:] = [attempt]
            rows = attempt.settle(done, request)
            if request is not None:
                attempt.claim(request, rows)
            transaction.commit(*attempt.last_writes(), *self._notifications(queue, attempt.changed))
            return attempt

        try:
            exchange = self._server.transact(work)
        except OutcomeUnknown:
            self._in_doubt.remember(done, last_attempt[0].took, last_attempt[0].claims)
            raise
        for task, seq in exchange.inserted:
            task.seq = seq
        self._server.notifier.notify(*exchange.changed)
        return exchange.took, exchange.claims

    def release(self, tasks: Sequence[Task], now: float) -> list[bool]:
        """Stop holding waiting tasks."""
        queue = self._server.queue_id

        def work(transaction: Transaction) -> list[bool]:
            freed, places = release_held(self._statements, transaction, queue, tasks, now)
            self._rerank(transaction, queue, places)
            return freed

        freed = self._server.transact(work)
        if any(freed):
            self._server.notifier.notify(Channel.WORK)
        return freed

    def extend(self, workers: Collection[str], until: float) -> int:
        """Prolong the leases of workers, on tasks and locks."""
        queue, names = self._server.queue_id, text_array(workers)
        _, tasks = self._server.write(
            (self._statements.extend_locks, (queue, until, names)), (self._statements.extend, (queue, until, names))
        )
        return tasks.row_count

    def recover(
        self,
        now: float,
        actor: Actor,
        *,
        max_interruptions: int = MAX_INTERRUPTIONS,
        of_functions: Mapping[str, int] = NO_LIMITS,
        limit: int = 100,
    ) -> list[Claim]:
        """Recover tasks whose leases have lapsed."""
        queue = self._server.queue_id
        if not self._server.read(self._statements.any_lapsed, queue, now):
            return []

        def work(transaction: Transaction) -> Recovery:
            found = recover_lapsed(
                self._statements,
                transaction,
                queue,
                now,
                actor,
                lambda name: of_functions.get(name, max_interruptions),
                limit,
            )
            transaction.commit(*found.commands, *self._notifications(queue, found.changed))
            return found

        recovery = self._server.transact(work)
        self._server.notifier.notify(*recovery.changed)
        return recovery.claims

    def cancel(self, task_id: str) -> bool:
        """Request cancellation of a running task."""
        return bool(
            self._server.write((self._statements.request_cancellation, (self._server.queue_id, task_id)))[0].row_count
        )

    def canceling(self, workers: Collection[str]) -> list[str]:
        """Return the ids of the workers' tasks for which cancellation was requested."""
        return [
            row[0] for row in self._server.read(self._statements.canceling, self._server.queue_id, text_array(workers))
        ]

    def _rerank(self, transaction: Transaction, queue: int, places: Sequence[tuple[int, Visibility]]) -> None:
        """Store when claims find tasks that no worker holds, and commit."""
        if places:
            transaction.commit(self._statements.rank(queue, places), *self._notifications(queue, {Channel.WORK}))

    def _notifications(self, queue: int, channels: Collection[Channel]) -> list[Command]:
        """Return the commands that notify other processes at the commit."""
        schema, process = self._server.schema, self._server.process
        return [
            (self._statements.notify, (queue, channel.value, channel_name(schema, queue, channel), process))
            for channel in channels
        ]

    # Revocations and locks -----------------------------------------------------------------------------------------

    def revoke(self, target: RevocationTarget, revocation: Revocation, now: float) -> None:
        """Store a revocation."""
        queue = self._server.queue_id
        command: Command = (self._statements.store_revocation, (queue, *target, revocation.until, revocation.once))
        if target.function:
            self._server.write(command)
            return

        def work(transaction: Transaction) -> bool:
            # The row of the task is locked first, as claims do.
            row, _ = transaction.run((self._statements.lock_row, (queue, target.key)), command)
            return self._rerank_waiting(transaction, queue, row.rows, revocation, now)

        if self._server.transact(work):
            self._server.notifier.notify(Channel.WORK)

    def restore(self, target: RevocationTarget, now: float) -> bool:
        """Delete a revocation."""
        queue = self._server.queue_id
        command: Command = (self._statements.delete_revocation, (queue, *target))
        if target.function:
            return bool(self._server.write(command)[0].row_count)

        def work(transaction: Transaction) -> tuple[bool, bool]:
            row, deleted = transaction.run((self._statements.lock_row, (queue, target.key)), command)
            if not deleted.row_count:
                return False, False
            reranked = self._rerank_waiting(transaction, queue, row.rows, None, now)
            return all(task_from_row(one).state != REVOKED for one in row.rows), reranked  # `revoked` is final

        restored, reranked = self._server.transact(work)
        if reranked:
            self._server.notifier.notify(Channel.WORK)
        return restored

    def _rerank_waiting(
        self, transaction: Transaction, queue: int, rows: list[Row], own: Revocation | None, now: float
    ) -> bool:
        free = [one for one in map(task_from_row, rows) if one.state in WAITING and one.lease is None]
        self._rerank(transaction, queue, [(cast(int, one.seq), visibility(one, own, now)) for one in free])
        return bool(free)

    def revocation(self, target: RevocationTarget) -> Revocation | None:
        """Return a stored revocation."""
        rows = self._server.read(self._statements.revocation, self._server.queue_id, *target)
        return revocation_from_columns(*rows[0]) if rows else None

    def lock(self, lock: Lock, now: float) -> bool:
        """Take a lock."""
        return bool(self._server.write((self._statements.lock, (self._server.queue_id, *lock, now)))[0].row_count)

    def unlock(self, name: str, owner: str) -> bool:
        """Free a lock of this owner."""
        return bool(self._server.write((self._statements.unlock, (self._server.queue_id, name, owner)))[0].row_count)

    def locks(self, now: float) -> list[Lock]:
        """Return the locks that are taken, by name."""
        return sorted(
            (Lock(*row) for row in self._server.read(self._statements.locks, self._server.queue_id, now)), key=_by_name
        )

    def flush_locks(self, names: Collection[str] | None = None) -> int:
        """Free locks, whatever their owner."""
        which = None if names is None else text_array(names)
        return self._server.write((self._statements.flush_locks, (self._server.queue_id, which)))[0].row_count

    # Queries -------------------------------------------------------------------------------------------------------

    def get(self, task_id: str) -> Task | None:
        """Return a task."""
        rows = self._server.read(self._statements.get, self._server.queue_id, task_id)
        return task_from_row(rows[0]) if rows else None

    def history(self, task_id: str) -> list[Record] | None:
        """Return the history of a task."""
        rows = self._server.read(self._statements.history, self._server.queue_id, task_id)
        return read_history(rows[0][0]) if rows else None

    def status(self, task_id: str) -> TaskStatus | None:
        """Return state and result of a task."""
        rows = self._server.read(self._statements.status, self._server.queue_id, task_id)
        return TaskStatus(*rows[0]) if rows else None

    def statuses(self, task_ids: Collection[str]) -> dict[str, TaskStatus]:
        """Return state and result of many tasks."""
        rows = self._server.read(self._statements.statuses, self._server.queue_id, text_array(task_ids))
        return {task_id: TaskStatus(*rest) for task_id, *rest in rows}

    def counts(self) -> dict[str, int]:
        """Return the number of tasks in each state."""
        return self._summary.counts()

    def tasks(
        self,
        states: Collection[str] | None = None,
        limit: int = 100,
        before: int | None = None,
        *,
        name: str | None = None,
        since: float | None = None,
    ) -> list[Task]:
        """Return tasks, newest first."""
        return self._summary.tasks(None if states is None else list(states), limit, before, name, since)

    def find_ids(self, text: str, limit: int = 10) -> list[str]:
        """Return ids that begin or end with a text."""
        queue = self._server.queue_id
        _, found = self._server.read_all(
            (self._statements.allow_seqscan, (queue,)), (self._statements.find_ids, (queue, text, limit))
        )
        return [task_id for (task_id,) in found.rows]

    def next_due(self, skip_names: frozenset[str] = frozenset()) -> float | None:
        """Return the moment from which a claim may find a task."""
        queue = self._server.queue_id
        ((ready, *moments),) = self._server.read(self._statements.next_due, queue)
        if ready and skip_names:
            names = text_array(skip_names)
            ((ready, expiry),) = self._server.read(self._statements.next_not_skipped, queue, names)
            moments.append(expiry)
        if ready:
            return float("-inf")
        return min((moment for moment in moments if moment is not None), default=None)

    # Maintenance ---------------------------------------------------------------------------------------------------

    def prune(self, before: float, limit: int = 1000, states: Collection[str] | None = None) -> int:
        """Delete tasks that came to rest before a moment."""
        self._summary.make()  # regularly, so that look-ups find little to do
        among = text_array(AT_REST if states is None else states)
        (result,) = self._server.write((self._statements.prune, (self._server.queue_id, before, limit, among)))
        return int(result.rows[0][0])

    def flush(self) -> None:
        """Delete everything of the queue."""
        queue = self._server.queue_id
        self._server.write(
            *((one, (queue,)) for one in self._statements.flush), *self._notifications(queue, set(Channel))
        )
        self._server.notifier.notify(*Channel)

    def clock(self) -> Clock:
        """Return the clock of the server."""
        return RemoteClock(self._server.now)

    def close(self) -> None:
        """Close the connections."""
        self._server.close()


_by_name: Final = attrgetter("name")


def _set_numbers(tasks: Sequence[Task], numbers: Sequence[int]) -> None:
    for task, seq in zip(tasks, numbers, strict=True):
        task.seq = seq
