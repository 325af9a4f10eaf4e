"""A PostgreSQL server as a queue uses it: the schema is checked, or created, at the first call; safe across a fork."""

import os
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from lifecycle.errors import StorageUnusable
from lifecycle.storage.notifications import Notifier
from lifecycle.storage.postgres import schema
from lifecycle.storage.postgres.errors import CONFLICT_CODES, session_error, translated
from lifecycle.storage.postgres.listener import RECHECK_SECONDS, PostgresSubscription
from lifecycle.storage.postgres.pool import SessionPool
from lifecycle.storage.postgres.session import (
    Command,
    ConnectionLost,
    Result,
    ServerError,
    Session,
    Statement,
    Value,
    driver,
)
from lifecycle.storage.postgres.statements import Statements
from lifecycle.storage.postgres.transaction import Transaction

__all__ = ["PostgresServer"]

T = TypeVar("T")

OLDEST_VERSION: Final = 13
"""The oldest version of PostgreSQL that is accepted: the schema uses its features."""
TRANSACTION_ATTEMPT_LIMIT: Final = 10
"""Number of attempts at a transaction that is in conflict with others."""

_CLOCK: Final = Statement(b"clock", b"select extract(epoch from clock_timestamp())::float8")

_servers: "weakref.WeakSet[PostgresServer]" = weakref.WeakSet()


class PostgresServer:
    """One schema in a database, and one queue in the schema; the first use checks them, or creates them."""

    def __init__(
        self, parameters: Mapping[str, str], queue: str, statements: Statements, *, migrate: bool, pool_size: int
    ) -> None:
        """`parameters`: of libpq; `migrate`: create the schema and bring it up to date, if need be."""
        self.pool = SessionPool(parameters, pool_size)
        self._queue, self.statements, self.schema = queue, statements, statements.schema
        self._migrate = migrate
        self.notifier = Notifier(lambda: PostgresSubscription(self), recheck_seconds=RECHECK_SECONDS)
        self._start()
        _servers.add(self)

    def _start(self) -> None:
        self._opening = threading.Lock()
        self._queue_id = 0
        self.process = f"{os.getpid()}:{os.urandom(6).hex()}"
        """Name of this process among the listeners."""

    def reset_after_fork(self) -> None:
        """Start again in a child process: connections and threads belong to the parent."""
        self.pool.reset_after_fork()
        self.notifier.reset_after_fork()
        self._start()

    # Connections and schema ------------------------------------------------------------------------------------------

    def connect(self) -> Session:
        """Return a new connection, which the caller closes with `disconnect`."""
        return self.pool.connect()

    def disconnect(self, session: Session) -> None:
        """Close a connection."""
        self.pool.disconnect(session)

    def is_own_backend(self, pid: int) -> bool:
        """Return whether a server process serves a connection of this process."""
        return any(session.pid == pid for session in list(self.pool.sessions))

    @property
    def queue_id(self) -> int:
        """Number of the queue in the schema; the first use checks the schema, or creates it."""
        if not self._queue_id:
            with self._opening:
                if not self._queue_id:
                    self._queue_id = self._open()
        return self._queue_id

    def _open(self) -> int:
        with self.pool.session() as session:
            version, latest = self._version(session), len(schema.MIGRATIONS)
            if version < latest and self._migrate:
                self._migrate_schema(session)
            elif version < latest:
                state = f"has version {version}, this release needs {latest}" if version else "is not there"
                raise StorageUnusable(
                    f"the schema {self.schema} {state}, and the URL says migrate=no: run `lifecycle migrate` once"
                )
            name = schema.quoted(self.schema)
            insert = Statement(b"", f"insert into {name}.queue(name) values ($1) on conflict do nothing".encode())
            find: Command = (Statement(b"", f"select id from {name}.queue where name = $1".encode()), [self._queue])
            try:
                for commands in ((find,), ((insert, [self._queue]), find), (find,)):
                    if rows := session.run(*commands)[-1].rows:
                        return int(rows[0][0])
            except (ServerError, ConnectionLost) as error:
                raise translated(error) from error
        raise StorageUnusable(f"the queue's row in the schema {self.schema} cannot be found: is it being deleted?")

    def _version(self, session: Session) -> int:
        """Return the version of the schema; 0: it does not exist.

        Raises `StorageUnusable` if the schema belongs to another program, or is newer than this release, and if the
        server or the database cannot be used.
        """
        latest = len(schema.MIGRATIONS)
        inspect = Statement(
            b"",
            b"select to_regclass($1) is not null, exists(select from pg_class c join pg_namespace n"
            b" on n.oid = c.relnamespace where n.nspname = $2 and c.relkind in ('r', 'v', 'm', 'p', 'f')),"
            b" getdatabaseencoding(), current_setting('server_version_num')::int",
        )
        try:
            ((ours, has_tables, encoding, server),) = session.run(
                (inspect, [f"{schema.quoted(self.schema)}.migration", self.schema])
            )[0].rows
            if server < OLDEST_VERSION * 10_000:
                raise StorageUnusable(f"PostgreSQL {server // 10_000} is too old: {OLDEST_VERSION} or newer is needed")
            if encoding != "UTF8":
                raise StorageUnusable(f"the database is in {encoding}: make one for the queue with encoding 'UTF8'")
            if not ours and has_tables:
                raise StorageUnusable(
                    f"the schema {self.schema} is another program's: let the URL say schema=… with a name of its own"
                )
            if not ours:
                return 0
            select = f"select coalesce(max(version), 0) from {schema.quoted(self.schema)}.migration"
            ((version,),) = session.run((Statement(b"", select.encode()), []))[0].rows
        except (ServerError, ConnectionLost) as error:
            raise translated(error) from error
        if version > latest:
            raise StorageUnusable(
                f"the schema {self.schema} has version {version}, this release knows {latest}:"
                " use the release that wrote it"
            )
        return int(version)

    def migrate(self) -> tuple[int, int]:
        """Bring the schema up to date; return its version before (0: it did not exist) and after."""
        with self.pool.session() as session:
            self._version(session)
            return self._migrate_schema(session)

    def _migrate_schema(self, session: Session) -> tuple[int, int]:
        """Make all missing versions, or none. Another process that does the same waits, and then has nothing to do."""
        psycopg = driver()
        db, name = session.connection, schema.quoted(self.schema)
        try:
            with db.transaction():
                db.execute("set local lock_timeout = 0")
                db.execute("select pg_advisory_xact_lock(hashtext(%s), 1)", [f"lifecycle {self.schema}"])
                version = self._version(session)
                if not version:
                    db.execute(f"create schema if not exists {name}")
                    db.execute(schema.VERSIONS.replace("SCHEMA", name))
                for number in range(version + 1, len(schema.MIGRATIONS) + 1):
                    db.execute(schema.migration(number, self.schema))
                    db.execute(f"insert into {name}.migration(version) values (%s)", [number])
        except psycopg.Error as error:
            raise translated(session_error(error, session)) from None
        return version, len(schema.MIGRATIONS)

    # Calls -----------------------------------------------------------------------------------------------------------

    def read(self, statement: Statement, *parameters: Value) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        return self.read_all((statement, parameters))[0].rows

    def read_all(self, *commands: Command) -> list[Result]:
        """Run statements that change nothing, in one round trip; after a lost connection, once more."""
        try:
            return self._run(commands)
        except ConnectionLost:
            try:
                return self._run(commands)
            except ConnectionLost as error:
                raise translated(error) from error

    def _run(self, commands: tuple[Command, ...]) -> list[Result]:
        with self.pool.session() as session:
            try:
                return session.run(*commands)
            except ServerError as error:
                raise translated(error) from error

    def now(self) -> float:
        """Return the time of the server's clock (UTC seconds)."""
        return float(self.read(_CLOCK)[0][0])

    def write(self, *commands: Command) -> list[Result]:
        """Run statements as one transaction, in one round trip."""
        return self.transact(lambda transaction: transaction.run_whole(*commands))

    def transact(self, work: Callable[[Transaction], T]) -> T:
        """Run a function in a transaction, then commit; repeat it after a conflict with another transaction.

        The function must not change its arguments, since it may run several times. Raises `StorageError`.
        """
        for attempt in range(1, TRANSACTION_ATTEMPT_LIMIT + 1):
            with self.pool.session() as session:
                transaction = Transaction(session)
                try:
                    value = work(transaction)
                    transaction.commit()
                except ServerError as error:
                    unknown = transaction.committing  # a server that shuts down may have committed before
                    transaction.roll_back()
                    if error.sqlstate not in CONFLICT_CODES or attempt == TRANSACTION_ATTEMPT_LIMIT:
                        raise translated(error, unknown=unknown) from error
                except ConnectionLost as error:
                    raise translated(error, unknown=transaction.committing) from error
                except BaseException:
                    transaction.roll_back()
                    raise
                else:
                    return value
        raise AssertionError  # not reached

    def close(self) -> None:
        """Close the connections for good; a connection in use is closed after its call."""
        self.pool.close()
        self.notifier.close()


# Forks -------------------------------------------------------------------------------------------------------------


def _reset_in_child() -> None:
    for server in list(_servers):
        server.reset_after_fork()


os.register_at_fork(after_in_child=_reset_in_child)
