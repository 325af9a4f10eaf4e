"""A transaction on a PostgreSQL session, with as few round trips as possible."""

from contextlib import suppress

from lifecycle.storage.postgres.session import (
    BEGIN,
    COMMIT,
    ROLLBACK,
    Command,
    ConnectionLost,
    Result,
    ServerError,
    Session,
)

__all__ = ["Transaction"]


class Transaction:
    """Statements that happen together, or not at all. The first statement begins the transaction."""

    def __init__(self, session: Session, *, begun: bool = False) -> None:
        """`begun`: the session is in a transaction."""
        self._session = session
        self._begun, self._over = begun, False
        self.committing = False
        """True during the commit: if the connection is lost then, whether the commit happened is unknown."""

    def run(self, *commands: Command) -> list[Result]:
        """Run statements, in one round trip."""
        if self._begun:
            return self._session.run(*commands)
        self._begun = True
        return self._session.run((BEGIN, ()), *commands)[1:]

    def run_whole(self, *commands: Command) -> list[Result]:
        """Run all statements of the transaction and commit, in one round trip."""
        self._over = self.committing = True
        return self._session.run(*commands)

    def commit(self, *commands: Command) -> list[Result]:
        """Run the last statements and commit, in one round trip. A second call does nothing."""
        if self._over:
            return []
        if not self._begun:
            return self.run_whole(*commands) if commands else []
        self._over = self.committing = True
        return self._session.run(*commands, (COMMIT, ()))[:-1]

    def roll_back(self) -> None:
        """Undo all statements."""
        self.committing = False
        if self._session.is_usable() and not self._session.is_idle():
            with suppress(ServerError, ConnectionLost):  # the end of the connection ends the transaction, too
                self._session.run((ROLLBACK, ()))
