"""The connections of a process to a PostgreSQL server: few, opened when they are needed, not shared across a fork."""

import os
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from lifecycle.errors import ConfigurationError, StorageError, StorageUnavailable
from lifecycle.storage.postgres.errors import connect_error, session_error, translated
from lifecycle.storage.postgres.session import Session, driver

__all__ = ["SessionPool"]

POOL_WAIT_SECONDS: Final = 30.0
"""Longest time for which a call waits for a free connection."""
CONNECTION_DEFAULTS: Final = {
    "connect_timeout": "10", "keepalives_idle": "30", "keepalives_interval": "10", "keepalives_count": "3",
    "tcp_user_timeout": "60000", "fallback_application_name": "lifecycle", "client_encoding": "UTF8",
}  # fmt: skip
"""Parameters of libpq that a URL can replace. With these a lost server is noticed within a minute."""
SESSION_SETTINGS: Final = (
    # Each statement has one right plan, with the index that was made for the statement. PostgreSQL makes plans while
    # the tables are empty, and keeps them: without these settings they would be plans for empty tables.
    "set plan_cache_mode = force_generic_plan; set enable_seqscan = off; set enable_bitmapscan = off;"
    " set enable_hashjoin = off; set enable_mergejoin = off; set jit = off;"
    # A client that is gone must not keep rows locked.
    " set idle_in_transaction_session_timeout = '60s'; set tcp_keepalives_idle = 30; set tcp_keepalives_interval = 10;"
    " set tcp_keepalives_count = 3; set default_transaction_isolation = 'read committed';"
    " set client_min_messages = error;"
    # A role, a database or a URL may have other settings: values must mean the same in each session.
    " set client_encoding = 'UTF8'; set bytea_output = hex; set extra_float_digits = 1; set array_nulls = on;"
    " set standard_conforming_strings = on; set default_transaction_read_only = off"
)


class SessionPool:
    """At most `size` sessions, lent to one thread each. See decision 17 for why this is not `psycopg_pool`."""

    def __init__(self, parameters: Mapping[str, str], size: int) -> None:
        """`parameters`: of libpq."""
        self.parameters = CONNECTION_DEFAULTS | dict(parameters)
        self._size = size
        self._closed = False
        self._start()

    def _start(self) -> None:
        self.sessions: set[Session] = set()
        """All open sessions, those in use and the listener's included."""
        # For a queue that is dropped without `close`.
        self._finalizer = weakref.finalize(self, _close_sessions, self.sessions)
        self._finalizer.atexit = False
        self._free: list[Session] = []
        self._in_use_count = 0
        self._changed = threading.Condition()

    def reset_after_fork(self) -> None:
        """Start again in a child process: the sessions belong to the parent.

        The child closes its copies of the sockets, and sends nothing: otherwise the server would not notice the end of
        the parent, and would keep the parent's rows locked.
        """
        for session in self.sessions:
            os.close(session.fd)
        _parents_sessions.extend(self.sessions)
        self._finalizer.detach()
        self._start()

    def connect(self) -> Session:
        """Return a new session, which is not counted. Raises `StorageUnavailable`, `StorageUnusable`."""
        psycopg = driver()
        if self._closed:
            raise StorageError("the queue was closed")
        try:
            connection = psycopg.connect(**self.parameters, autocommit=True)
        except psycopg.Error as error:
            raise connect_error(str(error)) from None  # the traceback of psycopg's error contains the parameters
        except UnicodeError as error:
            raise ConfigurationError(f"the host in the queue's URL is not a valid host name: {error}") from None
        session = Session(connection)
        self.sessions.add(session)
        try:
            connection.execute(SESSION_SETTINGS)
        except psycopg.Error as error:
            failure = session_error(error, session)
            self.disconnect(session)
            raise translated(failure) from None
        return session

    def disconnect(self, session: Session) -> None:
        """Close a session."""
        self.sessions.discard(session)
        session.close()

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Lend a session; waits for a free one if all are in use. Raises `StorageUnavailable`, `StorageUnusable`."""
        session = self._acquire()
        try:
            yield session
        finally:
            idle = session.is_idle()
            with self._changed:
                self._in_use_count -= 1
                keep = idle and not self._closed
                if keep:
                    self._free.append(session)
                self._changed.notify()
            if not keep:
                self.disconnect(session)

    def _acquire(self) -> Session:
        with self._changed:
            if not self._changed.wait_for(lambda: self._closed or self._in_use_count < self._size, POOL_WAIT_SECONDS):
                raise StorageUnavailable(f"all {self._size} connections are busy: let the URL say pool_size=…")
            if self._closed:
                raise StorageError("the queue was closed")
            self._in_use_count += 1
        try:
            while session := self._pop_free():
                if not session.has_input():
                    return session
                self.disconnect(session)  # the server has ended it
            return self.connect()
        except BaseException:
            with self._changed:
                self._in_use_count -= 1
                self._changed.notify()
            raise

    def _pop_free(self) -> Session | None:
        with self._changed:
            return self._free.pop() if self._free else None

    def close(self) -> None:
        """Close the sessions for good; a session in use is closed after its call."""
        with self._changed:
            self._closed = True
            free, self._free = self._free, []
            self._changed.notify_all()
        for session in free:
            self.disconnect(session)


def _close_sessions(sessions: Iterable[Session]) -> None:
    for session in sessions:
        session.close()


_parents_sessions: list[Session] = []
"""Sessions of the parent process, kept in a child: if Python collected them, it would warn of unclosed connections."""
