"""A PostgreSQL server as a queue uses it: reached late, through a few connections, safe to keep across a fork."""

import importlib
import os
import re
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any, Final, TypeVar

from lifecycle.errors import ConfigurationError, StorageError, StorageFull, StorageUnavailable, StorageUnusable
from lifecycle.storage.notifications import Notifier
from lifecycle.storage.postgres import schema
from lifecycle.storage.postgres.listener import SOON, PostgresSubscription
from lifecycle.storage.postgres.session import (
    BEGIN,
    COMMIT,
    ROLLBACK,
    Command,
    ConnectionLost,
    Result,
    ServerError,
    Session,
    Statement,
    Value,
)
from lifecycle.storage.postgres.statements import Sql

__all__ = ["OutcomeUnknown", "PostgresServer", "Transaction", "driver", "translated"]

T = TypeVar("T")

PATIENCE: Final = 30.0
"""Seconds that a call waits for one of the connections to be free."""
OLDEST: Final = 13
"""The least version of PostgreSQL: it has what the schema is made of."""
AGAIN: Final = 10
"""How often a transaction is tried that another one got in the way of."""
DEFAULTS: Final = {
    "connect_timeout": "10", "keepalives_idle": "30", "keepalives_interval": "10", "keepalives_count": "3",
    "tcp_user_timeout": "60000", "fallback_application_name": "lifecycle", "client_encoding": "UTF8",
}  # fmt: skip
"""What a connection is asked for, unless the URL says otherwise: a server that is gone is missed within a minute."""
SETTINGS: Final = (
    # There is one right plan for each statement, by the index that was made for it. Plans are made when the tables are
    # empty, and kept: none must be made for tables that stay so.
    "set plan_cache_mode = force_generic_plan; set enable_seqscan = off; set enable_bitmapscan = off;"
    " set enable_hashjoin = off; set enable_mergejoin = off; set jit = off;"
    # A client that has gone must not keep its tasks locked.
    " set idle_in_transaction_session_timeout = '60s'; set tcp_keepalives_idle = 30; set tcp_keepalives_interval = 10;"
    " set tcp_keepalives_count = 3; set default_transaction_isolation = 'read committed';"
    " set client_min_messages = error"
)

_CLOCK: Final = Statement(b"clock", b"select extract(epoch from clock_timestamp())::float8")

_live: "weakref.WeakSet[PostgresServer]" = weakref.WeakSet()


class OutcomeUnknown(StorageUnavailable):
    """The connection was lost when the write was on its way: whether it happened is not known."""


def driver() -> ModuleType:
    """psycopg, loaded when it is first used. Raises `ConfigurationError` if it is not there."""
    try:
        return importlib.import_module("psycopg")
    except ImportError as error:
        raise ConfigurationError(
            f"a PostgreSQL queue needs psycopg 3 ({error}): pip install 'task-lifecycle[postgres]'"
        ) from None


class PostgresServer:
    """One schema in a database, and one queue in it; looked at, and made if it is not there, at the first use."""

    def __init__(self, parameters: Mapping[str, str], queue: str, sql: Sql, *, migrate: bool, pool_size: int) -> None:
        """`parameters`: libpq's."""
        self._parameters = DEFAULTS | dict(parameters)
        self._queue, self.sql, self.schema = queue, sql, sql.schema
        self._migrate, self._size = migrate, pool_size
        self._closed = False
        self._all: set[Session] = set()
        self.watch = Notifier(lambda: PostgresSubscription(self), recheck_seconds=SOON)
        self._begin_anew()
        _live.add(self)

    def _begin_anew(self) -> None:
        self._free: list[Session] = []
        self._used = 0
        self._changed = threading.Condition()
        self._opening = threading.Lock()
        self._queue_id = 0
        self.process = f"{os.getpid()}:{os.urandom(6).hex()}"
        """Who it is among those who listen."""

    def forget(self) -> None:
        """Start anew, as a child after a fork: connections and threads are the parent's.

        What the child has of the connections is shut, without a word to the server: else the server would not see the
        parent's end, and keep its locks.
        """
        for session in self._all:
            os.close(session.fd)
        _orphans.extend(self._all)
        self._all = set()
        self.watch.reset_after_fork()
        self._begin_anew()

    # Connections ---------------------------------------------------------------------------------------------------

    def connect(self) -> Session:
        """A new connection. Raises `StorageUnavailable`, `StorageUnusable`."""
        psycopg = driver()
        if self._closed:
            raise StorageError("the queue was closed")
        try:
            connection = psycopg.connect(**self._parameters, autocommit=True)
        except psycopg.Error as error:
            raise _unreachable(str(error)) from None  # the driver's own has all parameters in its traceback
        except UnicodeError as error:
            raise ConfigurationError(f"a host in the URL of the queue cannot be: {error}") from None
        session = Session(connection)
        self._all.add(session)
        try:
            connection.execute(SETTINGS)
        except psycopg.Error as error:
            failure = _as_ours(error, session)
            self.drop(session)
            raise translated(failure) from None
        return session

    def is_ours(self, pid: int) -> bool:
        """Is that the backend of a connection of this process?"""
        return any(session.pid == pid for session in list(self._all))

    def drop(self, session: Session) -> None:
        """End a connection."""
        self._all.discard(session)
        session.close()

    @contextmanager
    def _session(self) -> Iterator[Session]:
        session = self._take()
        try:
            yield session
        finally:
            keep = not session.busy()
            with self._changed:
                self._used -= 1
                if keep and not self._closed:
                    self._free.append(session)
                else:
                    keep = False
                self._changed.notify()
            if not keep:
                self.drop(session)

    def _take(self) -> Session:
        with self._changed:
            if not self._changed.wait_for(lambda: self._closed or self._used < self._size, PATIENCE):
                raise StorageUnavailable(f"all {self._size} connections are busy: let the URL say pool_size=…")
            if self._closed:
                raise StorageError("the queue was closed")
            self._used += 1
            session = self._free.pop() if self._free else None
        try:
            while session is not None and session.disturbed():
                self.drop(session)
                with self._changed:
                    session = self._free.pop() if self._free else None
            return session or self.connect()
        except BaseException:
            with self._changed:
                self._used -= 1
                self._changed.notify()
            raise

    @property
    def queue_id(self) -> int:
        """The queue's number in the schema, which is looked at, and made, to know it."""
        if not self._queue_id:
            with self._opening:
                if not self._queue_id:
                    self._queue_id = self._open()
        return self._queue_id

    def _open(self) -> int:
        with self._session() as session:
            there, known = self.version(session), len(schema.MIGRATIONS)
            if there < known and self._migrate:
                self._bring_up_to_date(session)
            elif there < known:
                what = f"has version {there}, this release needs {known}" if there else "is not there"
                raise StorageUnusable(
                    f"the schema {self.schema} {what}, and the URL says migrate=no: run `lifecycle migrate` once"
                )
            name = schema.quoted(self.schema)
            new = Statement(b"", f"insert into {name}.queue(name) values ($1) on conflict do nothing".encode())
            ours = Statement(b"", f"select id from {name}.queue where name = $1".encode())
            try:
                if not (found := session.run((ours, [self._queue]))[0].rows):
                    _, found = (result.rows for result in session.run((new, [self._queue]), (ours, [self._queue])))
                return int(found[0][0]) if found else int(session.run((ours, [self._queue]))[0].rows[0][0])
            except (ServerError, ConnectionLost) as error:
                raise translated(error) from error

    def version(self, session: Session) -> int:
        """Which version the schema has; 0: none. Raises `StorageUnusable` if it is not ours, or newer than we are."""
        known = len(schema.MIGRATIONS)
        look = Statement(
            b"",
            b"select to_regclass($1) is not null, exists(select from pg_class c join pg_namespace n"
            b" on n.oid = c.relnamespace where n.nspname = $2 and c.relkind in ('r', 'v', 'm', 'p', 'f')),"
            b" getdatabaseencoding(), current_setting('server_version_num')::int",
        )
        try:
            ((ours, others, encoding, server),) = session.run(
                (look, [f"{schema.quoted(self.schema)}.migration", self.schema])
            )[0].rows
            if server < OLDEST * 10_000:
                raise StorageUnusable(f"PostgreSQL {server // 10_000} is too old: {OLDEST} or newer is needed")
            if encoding != "UTF8":
                raise StorageUnusable(f"the database is in {encoding}: make one for the queue with encoding 'UTF8'")
            if not ours and others:
                raise StorageUnusable(
                    f"the schema {self.schema} is another program's: let the URL say schema=… with a name of its own"
                )
            if not ours:
                return 0
            latest = f"select coalesce(max(version), 0) from {schema.quoted(self.schema)}.migration"
            ((version,),) = session.run((Statement(b"", latest.encode()), []))[0].rows
        except (ServerError, ConnectionLost) as error:
            raise translated(error) from error
        if version > known:
            raise StorageUnusable(
                f"the schema {self.schema} has version {version}, this release knows {known}:"
                " use the release that wrote it"
            )
        return int(version)

    def migrate(self) -> tuple[int, int]:
        """Bring the schema up to date; which version it had, 0 if it was not there, and which it has."""
        with self._session() as session:
            self.version(session)
            return self._bring_up_to_date(session)

    def _bring_up_to_date(self, session: Session) -> tuple[int, int]:
        """All missing versions, or none; whoever else does the same waits, and finds it done."""
        psycopg = driver()
        db, name = session.connection, schema.quoted(self.schema)
        try:
            with db.transaction():
                db.execute("set local lock_timeout = 0")
                db.execute("select pg_advisory_xact_lock(hashtext(%s), 1)", [f"lifecycle {self.schema}"])
                there = self.version(session)
                if not there:
                    db.execute(f"create schema if not exists {name}")
                    db.execute(schema.VERSIONS.replace("SCHEMA", name))
                for number in range(there + 1, len(schema.MIGRATIONS) + 1):
                    db.execute(schema.migration(number, self.schema))
                    db.execute(f"insert into {name}.migration(version) values (%s)", [number])
        except psycopg.Error as error:
            raise translated(_as_ours(error, session)) from None
        return there, len(schema.MIGRATIONS)

    # Calls -----------------------------------------------------------------------------------------------------------

    def read(self, statement: Statement, *parameters: Value) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        return self.ask((statement, parameters))[0].rows

    def ask(self, *commands: Command) -> list[Result]:
        """Statements that change nothing, in one round trip. If the connection is lost they are put once more."""
        for last in False, True:
            with self._session() as session:
                try:
                    return session.run(*commands)
                except ServerError as error:
                    raise translated(error) from error
                except ConnectionLost as error:
                    if last:
                        raise translated(error) from error
        raise AssertionError  # not reached

    def now(self) -> float:
        """The server's clock (UTC seconds)."""
        return float(self.read(_CLOCK)[0][0])

    def write(self, *commands: Command) -> list[Result]:
        """Statements as one transaction, in one round trip."""

        def work(transaction: "Transaction") -> list[Result]:
            return transaction.only(*commands)

        return self.transact(work)

    def transact(self, work: Callable[["Transaction"], T]) -> T:
        """Do `work` in a transaction, which is committed at the end; again, if it met another in a deadlock.

        So `work` must not change what it was given. Raises `StorageError` and its children.
        """
        for attempt in range(1, AGAIN + 1):
            with self._session() as session:
                transaction = Transaction(session)
                try:
                    value = work(transaction)
                    transaction.commit()
                except ServerError as error:
                    unknown = transaction.committing  # if it ended the connection: the commit may have come before
                    transaction.roll_back()
                    if error.sqlstate not in _IN_THE_WAY or attempt == AGAIN:
                        raise translated(error, unknown=unknown) from error
                except ConnectionLost as error:
                    raise translated(error, unknown=transaction.committing) from error
                except BaseException:
                    transaction.roll_back()
                    raise
                else:
                    return value
        raise AssertionError  # not reached

    def translated(self, error: ServerError | ConnectionLost) -> StorageError:
        """See `translated`, the function."""
        return translated(error)

    def close(self) -> None:
        """End the connections, for good; those in use end when they are not any more."""
        with self._changed:
            self._closed = True
            free, self._free = self._free, []
            self._changed.notify_all()
        self.watch.close()
        for session in free:
            self.drop(session)


class Transaction:
    """Statements that happen together, or not at all."""

    def __init__(self, session: Session, *, begun: bool = False) -> None:
        self._session = session
        self._begun, self._over = begun, False
        self.committing = False
        """If the connection is lost now, nobody knows whether it happened."""

    def run(self, *commands: Command) -> list[Result]:
        """More statements, in one round trip."""
        if self._begun:
            return self._session.run(*commands)
        self._begun = True
        return self._session.run((BEGIN, ()), *commands)[1:]

    def only(self, *commands: Command) -> list[Result]:
        """The transaction as a whole, in one round trip."""
        self._over = self.committing = True
        return self._session.run(*commands)

    def commit(self, *commands: Command) -> list[Result]:
        """The last statements, and the end, in one round trip."""
        if self._over:
            return []
        if not self._begun:
            return self.only(*commands) if commands else []
        self._over = self.committing = True
        return self._session.run(*commands, (COMMIT, ()))[:-1]

    def roll_back(self) -> None:
        """Nothing of it has happened."""
        self.committing = False
        if self._session.pg.status == 0 and self._session.pg.pipeline_status == 0 and self._session.busy():
            with suppress(ServerError, ConnectionLost):  # its end is the end of the transaction, too
                self._session.run((ROLLBACK, ()))


# Errors ------------------------------------------------------------------------------------------------------------

_IN_THE_WAY: Final = ("40001", "40P01")  # serialization failure, deadlock
_UNREACHABLE: Final = re.compile(
    "authentication failed|no password supplied|does not exist|pg_hba.conf|not permitted to log in"
    "|permission denied for database|certificate|SSL|invalid (port|sslmode|value|integer)",
    re.IGNORECASE,
)


_ADVICE: Final[Sequence[tuple[tuple[str, ...], type[StorageError], str]]] = (
    (("53100",), StorageFull, "nothing was changed: make room on the server and try again"),
    (("53", "55", "57", "40"), StorageUnavailable, "nothing was changed, it can be tried again"),
    (("42501",), StorageUnusable, "grant its user what is missing, or run `lifecycle migrate` as the schema's owner"),
    (("3F000", "42P01", "42703", "42883"), StorageUnusable, "the queue's tables are not as they were made"),
)


def _as_ours(error: Any, session: Session) -> ServerError | ConnectionLost:
    """What psycopg raised, as a session would have."""
    words = " ".join(str(error).split())
    return ConnectionLost(words) if session.connection.closed else ServerError(error.sqlstate or "", words)


def _unreachable(message: str) -> StorageError:
    """Why there is no connection. libpq has only words for it; where they are no English, it may come back."""
    words = " ".join(message.split())
    if _UNREACHABLE.search(words):
        return StorageUnusable(
            f"PostgreSQL lets the queue not in: {words}; look at user, password and database in the URL"
        )
    return StorageUnavailable(f"PostgreSQL cannot be reached, it can be tried again: {words}")


def translated(error: ServerError | ConnectionLost, *, unknown: bool = False) -> StorageError:
    """The same in our words, and what to do."""
    if isinstance(error, ConnectionLost) or error.sqlstate[:3] == "57P":
        if unknown:
            return OutcomeUnknown(
                f"the connection to PostgreSQL was lost ({error}) as a write was on its way: look whether it was made"
                " before you repeat it"
            )
        return StorageUnavailable(f"the connection to PostgreSQL was lost ({error}); nothing was changed")
    for codes, kind, advice in _ADVICE:
        if error.sqlstate.startswith(codes):
            return kind(f"PostgreSQL: {error}; {advice}")
    return StorageError(f"PostgreSQL: {error}")


# Forks -------------------------------------------------------------------------------------------------------------

_orphans: list[Session] = []
"""What a child has of its parent's connections; if Python collected them it would warn that they were not closed."""


def _in_child() -> None:
    for server in list(_live):
        server.forget()


os.register_at_fork(after_in_child=_in_child)
