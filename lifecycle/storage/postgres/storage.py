"""The PostgreSQL adapter: a schema in a database, any number of processes on any number of hosts."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from operator import attrgetter
from typing import Any, Final, cast

from lifecycle.clock import Clock, RemoteClock
from lifecycle.core.policies import WAITING, Move, Revocation, enqueued, recover, visibility
from lifecycle.core.table import REVOKED
from lifecycle.core.task import Record, Task, read_history
from lifecycle.errors import ConfigurationError, DuplicateTask, StorageError
from lifecycle.storage.base import Actor, Channel, Claim, ClaimRequest, Lock, RevocationTarget, Settlement, TaskStatus
from lifecycle.storage.claims import visibility_after
from lifecycle.storage.postgres.exchange import Exchange
from lifecycle.storage.postgres.external_transaction import ELSEWHERE, begun, joined
from lifecycle.storage.postgres.in_doubt import Doubts
from lifecycle.storage.postgres.listener import channel_name
from lifecycle.storage.postgres.server import OutcomeUnknown, PostgresServer, Transaction
from lifecycle.storage.postgres.session import Command, numbers, texts
from lifecycle.storage.postgres.statements import Rank, Sql, ranks, revocation, task
from lifecycle.storage.postgres.url import ConnectionSettings

__all__ = ["PostgresStorage"]

_TOGETHER: Final = 1000
_BYTES: Final = 2**25
"""How many tasks, and about how many bytes of arguments, go into one statement."""
_TAKEN: Final = "23505"  # unique_violation


class PostgresStorage:
    """One queue in a schema of a PostgreSQL database; the schema is looked at, or made, at the first call."""

    def __init__(self, settings: ConnectionSettings, queue: str = "default") -> None:
        """`settings`: what `lifecycle.storage.postgres.url.parsed` made of a URL."""
        self._sql = Sql(settings.schema)
        self._server = PostgresServer(
            settings.parameters, queue, self._sql, migrate=settings.migrate, pool_size=settings.pool_size
        )
        self._name = queue
        self._doubts = Doubts(self._sql)
        watch = self._server.watch
        self.generation, self.wait, self.wake = watch.generation, watch.wait, watch.wake

    def migrate(self) -> tuple[int, int]:
        """Bring the schema up to date; the version that it had, 0 if it was not there, and the one it has now."""
        return self._server.migrate()

    # Moves ---------------------------------------------------------------------------------------------------------

    def enqueue(self, tasks: Sequence[Task], now: float, actor: Actor) -> list[Move]:
        """See `Storage.enqueue`."""
        _unique(tasks)
        made = [enqueued(one, now, *actor) for one in tasks]
        queue = self._server.queue_id
        tell = self._tell(queue, {Channel.WORK})

        def work(transaction: Transaction) -> list[int]:
            places = self._insert(transaction, queue, tasks, made)
            transaction.commit(*tell)
            return places

        places: list[int] = []
        if len(tasks) <= _TOGETHER and sum(len(one.payload) for one in tasks) <= _BYTES:  # in one round trip
            ranked = [visibility_after(one, move, None)[0] for one, move in zip(tasks, made, strict=True)]
            try:
                born, *_ = self._server.write(self._sql.births(queue, tasks, made, ranked, new=True), *tell)
                places = [seq for (seq,) in born.rows]
            except StorageError as error:
                if getattr(error.__cause__, "sqlstate", None) != _TAKEN:
                    raise
        if len(places) < len(tasks):  # an id is taken, or was revoked in advance, or it is a lot
            places = self._server.transact(work)
        _give_places(tasks, places)
        self._server.watch.notify(Channel.WORK)
        return made

    def enqueue_within(self, connection: object, tasks: Sequence[Task], now: float, actor: Actor) -> list[Move]:
        """The same within a transaction of the caller's: `connection` is its `psycopg.Connection`.

        The tasks are there for others once it commits, and never if it does not. Raises `ConfigurationError` if it is
        no such connection, or one to a database without this queue. What is raised leaves the transaction as it was.
        """
        _unique(tasks)
        made = [enqueued(one, now, *actor) for one in tasks]
        self._server.queue_id  # noqa: B018 -- makes the schema, if need be, before the other connection looks for it
        with joined(connection) as transaction:
            (found,) = transaction.run((self._sql.queue, (self._name,)))
            if not found.rows:
                raise ConfigurationError(ELSEWHERE)
            ((queue,),) = found.rows
            places = self._insert(transaction, queue, tasks, made)
            # By another than our connections: so whoever listens in this process hears it, too, once it is committed.
            transaction.run((self._sql.notify_all, (channel_name(self._server.schema, queue, Channel.WORK),)))
        _give_places(tasks, places)
        return made

    def transaction(self, connection: object) -> AbstractContextManager[object]:
        """A transaction on a `psycopg.Connection` that is in none. Raises `ConfigurationError`."""
        return begun(connection)

    def _insert(self, transaction: Transaction, queue: int, tasks: Sequence[Task], made: Sequence[Move]) -> list[int]:
        """Make tasks, and look first what is revoked of them; their places (`seq`)."""
        ids = [one.id for one in tasks]
        (said,) = transaction.run((self._sql.own, (queue, texts(ids))))
        own = {key: revocation(until, once) for key, until, once in said.rows}
        born: dict[str, int] = {}
        for part in _portions(tasks):
            ranked = [
                visibility_after(one, move, own.get(one.id))[0]
                for one, move in zip(tasks[part], made[part], strict=True)
            ]
            (result,) = transaction.run(self._sql.births(queue, tasks[part], made[part], ranked, new=False))
            born |= {task_id: seq for seq, task_id in result.rows}
        for task_id in ids:
            if task_id not in born:
                raise DuplicateTask(task_id)
        return [born[task_id] for task_id in ids]

    def exchange(self, done: Sequence[Settlement], request: ClaimRequest | None) -> tuple[list[bool], list[Claim]]:
        """See `Storage.exchange`."""
        if not done and request is None:
            return [], []
        queue = self._server.queue_id
        if self._doubts:
            known = self._server.transact(lambda transaction: self._doubts.resolved(transaction, queue, done, request))
            if known is not None:
                done, request = known.open, None if known.claims else request
                took, claims = self._exchange(queue, done, request)
                known.confirm()
                return known.merged(took), [*known.claims, *claims]
        return self._exchange(queue, done, request)

    def _exchange(
        self, queue: int, done: Sequence[Settlement], request: ClaimRequest | None
    ) -> tuple[list[bool], list[Claim]]:
        last: list[Exchange] = []

        def work(transaction: Transaction) -> Exchange:
            one = Exchange(self._sql, queue, transaction)
            last[:] = [one]
            found = one.settle(done, request)
            if request is not None:
                one.claim(request, found)
            transaction.commit(*one.writes(), *self._tell(queue, one.news))
            return one

        try:
            made = self._server.transact(work)
        except OutcomeUnknown:
            self._doubts.remember(done, last[0].took, last[0].claims)
            raise
        for born, seq in made.births:
            born.seq = seq
        self._server.watch.notify(*made.news)
        return made.took, made.claims

    def release(self, tasks: Sequence[Task], now: float) -> list[bool]:
        """See `Storage.release`."""
        queue = self._server.queue_id

        def work(transaction: Transaction) -> list[bool]:
            stored, own = self._locked(
                transaction,
                (self._sql.lock_rows, (queue, numbers([one.seq for one in tasks]))),
                (self._sql.own, (queue, texts([one.id for one in tasks]))),
            )
            held = {one.seq: one for one in stored if one.lease is not None and one.state in WAITING}
            freed, places = [], []
            for known in tasks:
                one = held.get(known.seq)
                free = one is not None and one.fence == known.fence
                if one is not None and free:
                    del held[known.seq]
                    places.append((cast(int, one.seq), visibility(one, own.get(one.id), now)))
                freed.append(free)
            self._rerank(transaction, queue, places)
            return freed

        freed = self._server.transact(work)
        if any(freed):
            self._server.watch.notify(Channel.WORK)
        return freed

    def extend(self, workers: Collection[str], until: float) -> int:
        """See `Storage.extend`."""
        queue, names = self._server.queue_id, texts(workers)
        _, tasks = self._server.write(
            (self._sql.extend_locks, (queue, until, names)), (self._sql.extend, (queue, until, names))
        )
        return tasks.touched

    def recover(self, now: float, actor: Actor, *, max_interruptions: int = 10, limit: int = 100) -> list[Claim]:
        """See `Storage.recover`."""
        queue = self._server.queue_id
        if not self._server.read(self._sql.any_lapsed, queue, now):
            return []

        def work(transaction: Transaction) -> tuple[list[Claim], set[Channel]]:
            stored, own = self._locked(
                transaction, (self._sql.lapsed, (queue, now, limit)), (self._sql.own_of_lapsed, (queue, now))
            )
            claims, freed = [], []
            rows: list[tuple[Task, Move, Rank]] = []
            news: set[Channel] = set()
            for known in stored:
                if known.state in WAITING:
                    freed.append((cast(int, known.seq), visibility(known, own.get(known.id), now)))
                    continue
                move = recover(
                    known, now, worker=actor.worker, hold_until=actor.hold_until, max_interruptions=max_interruptions
                )
                rows.append((known, move, visibility_after(known, move, own.get(known.id))))
                claims.append(Claim(known, move))
                news.add(Channel.OUTCOME if move.ended is not None else Channel.WORK)
            commands: list[Command] = []
            if rows:
                rows.sort(key=lambda row: row[0].seq or 0)
                commands = [
                    self._sql.moves(queue, rows),
                    (self._sql.free_locks, (queue, texts([known.id for known, _ in claims]))),
                ]
            if freed:
                news.add(Channel.WORK)
                commands.append((self._sql.rank, ranks(queue, freed)))
            transaction.commit(*commands, *self._tell(queue, news))
            return claims, news

        claims, news = self._server.transact(work)
        self._server.watch.notify(*news)
        return claims

    def cancel(self, task_id: str) -> bool:
        """See `Storage.cancel`."""
        return bool(self._server.write((self._sql.cancel, (self._server.queue_id, task_id)))[0].touched)

    def canceling(self, workers: Collection[str]) -> list[str]:
        """See `Storage.canceling`."""
        return [row[0] for row in self._server.read(self._sql.canceling, self._server.queue_id, texts(workers))]

    def _locked(
        self, transaction: Transaction, rows: Command, said: Command
    ) -> tuple[list[Task], dict[str, Revocation | None]]:
        """Rows, locked, and then, so that none is overlooked, what is revoked of them."""
        locked, revoked = transaction.run(rows, said)
        own = {key: revocation(until, once) for key, until, once in revoked.rows}
        return list(map(task, locked.rows)), own

    def _rerank(self, transaction: Transaction, queue: int, places: Sequence[tuple[int, Rank]]) -> None:
        """Say where claims find rows that nobody holds (any more), and commit."""
        if places:
            transaction.commit((self._sql.rank, ranks(queue, places)), *self._tell(queue, {Channel.WORK}))

    def _tell(self, queue: int, news: Collection[Channel]) -> list[Command]:
        """Say at the commit what others may wait for."""
        schema, process = self._server.schema, self._server.process
        return [
            (self._sql.notify, (queue, channel.value, channel_name(schema, queue, channel), process))
            for channel in news
        ]

    # Revocations and locks -----------------------------------------------------------------------------------------

    def revoke(self, target: RevocationTarget, revocation: Revocation, now: float) -> None:
        """See `Storage.revoke`."""
        queue = self._server.queue_id
        said: Command = (self._sql.say, (queue, *target, revocation.until, revocation.once))
        if target.function:
            self._server.write(said)
            return

        def work(transaction: Transaction) -> bool:
            # The task's row first, as claims do.
            row, _ = transaction.run((self._sql.lock_row, (queue, target.key)), said)
            return self._look_again(transaction, queue, row.rows, revocation, now)

        if self._server.transact(work):
            self._server.watch.notify(Channel.WORK)

    def restore(self, target: RevocationTarget, now: float) -> bool:
        """See `Storage.restore`."""
        queue = self._server.queue_id
        forget: Command = (self._sql.forget, (queue, *target))
        if target.function:
            return bool(self._server.write(forget)[0].touched)

        def work(transaction: Transaction) -> tuple[bool, bool]:
            row, forgotten = transaction.run((self._sql.lock_row, (queue, target.key)), forget)
            if not forgotten.touched:
                return False, False
            again = self._look_again(transaction, queue, row.rows, None, now)
            return all(task(one).state != REVOKED for one in row.rows), again  # that cannot be taken back

        restored, again = self._server.transact(work)
        if again:
            self._server.watch.notify(Channel.WORK)
        return restored

    def _look_again(
        self, transaction: Transaction, queue: int, rows: list[Any], own: Revocation | None, now: float
    ) -> bool:
        free = [one for one in map(task, rows) if one.state in WAITING and one.lease is None]
        self._rerank(transaction, queue, [(cast(int, one.seq), visibility(one, own, now)) for one in free])
        return bool(free)

    def revocation(self, target: RevocationTarget) -> Revocation | None:
        """See `Storage.revocation`."""
        rows = self._server.read(self._sql.revocation, self._server.queue_id, *target)
        return revocation(*rows[0]) if rows else None

    def lock(self, lock: Lock, now: float) -> bool:
        """See `Storage.lock`."""
        return bool(self._server.write((self._sql.lock, (self._server.queue_id, *lock, now)))[0].touched)

    def unlock(self, name: str, owner: str) -> bool:
        """See `Storage.unlock`."""
        return bool(self._server.write((self._sql.unlock, (self._server.queue_id, name, owner)))[0].touched)

    def locks(self, now: float) -> list[Lock]:
        """See `Storage.locks`."""
        return sorted((Lock(*row) for row in self._server.read(self._sql.locks, self._server.queue_id, now)), key=_name)

    def flush_locks(self, names: Collection[str] | None = None) -> int:
        """See `Storage.flush_locks`."""
        which = None if names is None else texts(names)
        return self._server.write((self._sql.flush_locks, (self._server.queue_id, which)))[0].touched

    # Look-ups ------------------------------------------------------------------------------------------------------

    def get(self, task_id: str) -> Task | None:
        """See `Storage.get`."""
        rows = self._server.read(self._sql.get, self._server.queue_id, task_id)
        return task(rows[0]) if rows else None

    def history(self, task_id: str) -> list[Record] | None:
        """See `Storage.history`."""
        rows = self._server.read(self._sql.history, self._server.queue_id, task_id)
        return read_history(rows[0][0]) if rows else None

    def status(self, task_id: str) -> TaskStatus | None:
        """See `Storage.status`."""
        rows = self._server.read(self._sql.status, self._server.queue_id, task_id)
        return TaskStatus(*rows[0]) if rows else None

    def counts(self) -> dict[str, int]:
        """See `Storage.counts`."""
        queue = self._server.queue_id
        # It looks at all rows, and need not do so by an index.
        _, counts = self._server.ask((self._sql.whole, (queue,)), (self._sql.counts, (queue,)))
        return dict(counts.rows)

    def tasks(self, states: Collection[str] | None = None, limit: int = 100, before: int | None = None) -> list[Task]:
        """See `Storage.tasks`."""
        which = None if states is None else texts(states)
        return list(map(task, self._server.read(self._sql.tasks, self._server.queue_id, before, which, limit)))

    def next_due(self) -> float | None:
        """See `Storage.next_due`."""
        ((ready, *moments),) = self._server.read(self._sql.next_due, self._server.queue_id)
        if ready:
            return float("-inf")
        return min((moment for moment in moments if moment is not None), default=None)

    # Keeping house -------------------------------------------------------------------------------------------------

    def prune(self, before: float, limit: int = 1000) -> int:
        """See `Storage.prune`."""
        (gone,) = self._server.write((self._sql.prune, (self._server.queue_id, before, limit)))
        return int(gone.rows[0][0])

    def flush(self) -> None:
        """See `Storage.flush`."""
        queue = self._server.queue_id
        self._server.write(*((one, (queue,)) for one in self._sql.flush), *self._tell(queue, set(Channel)))
        self._server.watch.notify(*Channel)

    def clock(self) -> Clock:
        """See `Storage.clock`. The server's."""
        return RemoteClock(self._server.now)

    def close(self) -> None:
        """See `Storage.close`."""
        self._server.close()


_name: Final = attrgetter("name")


def _unique(tasks: Sequence[Task]) -> None:
    """Raise `DuplicateTask` if an id stands there twice."""
    if len({one.id for one in tasks}) < len(tasks):
        raise DuplicateTask(next(task_id for task_id, times in Counter(one.id for one in tasks).items() if times > 1))


def _portions(tasks: Sequence[Task]) -> Iterator[slice]:
    """The tasks that go into one statement each."""
    begin = size = 0
    for end, one in enumerate(tasks):
        if end - begin == _TOGETHER or (size and size + len(one.payload) > _BYTES):
            yield slice(begin, end)
            begin, size = end, 0
        size += len(one.payload)
    yield slice(begin, len(tasks))


def _give_places(tasks: Sequence[Task], places: Sequence[int]) -> None:
    for one, seq in zip(tasks, places, strict=True):
        one.seq = seq
