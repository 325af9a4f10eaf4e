r"""Statements on their way to a PostgreSQL server and back: several in one round trip, prepared once a connection.

Below psycopg's cursors, on its wrapper of libpq, and on purpose: its own pipelines cost 260 µs for what takes 105 µs
here, and a busy worker does nothing else. Values go as text. PostgreSQL's text cannot hold U+0000: it is written as
``\0``, and a backslash as two.
"""

import re
import select
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    import psycopg
    from psycopg.pq.abc import PGresult
    from psycopg.pq.misc import PGnotify

__all__ = [
    "BEGIN", "COMMIT", "ROLLBACK", "Array", "Command", "ConnectionLost", "Result", "ServerError", "Session",
    "Statement", "Value", "blobs", "numbers", "texts",
]  # fmt: skip

Value = str | int | float | bool | bytes | None
"""A parameter; lists go as a `str` that `texts`, `numbers` or `blobs` made."""


class Statement(NamedTuple):
    """A statement, with ``$1``, ``$2``, … for its parameters."""

    name: bytes
    """Of the prepared statement: the same for the same SQL only."""
    sql: bytes


Command = tuple[Statement, Sequence[Value]]
"""A statement and its parameters."""


class Result(NamedTuple):
    """What came of a statement."""

    rows: list[tuple[Any, ...]]
    touched: int
    """How many rows it touched."""


class ServerError(Exception):
    """The server refused a statement; nothing of its transaction stays."""

    def __init__(self, sqlstate: str, message: str) -> None:
        """`message`: the server's, with no value of a parameter in it."""
        super().__init__(message)
        self.sqlstate = sqlstate


class ConnectionLost(Exception):
    """The connection ended in the midst of a call."""


BEGIN: Final = Statement(b"", b"begin")
COMMIT: Final = Statement(b"", b"commit")
ROLLBACK: Final = Statement(b"", b"rollback")

_SYNC: Final = 10  # PGRES_PIPELINE_SYNC
_ABORTED: Final = 11  # PGRES_PIPELINE_ABORTED
_FATAL: Final = 7  # PGRES_FATAL_ERROR
_GOOD: Final = 0  # CONNECTION_OK
_SQLSTATE: Final = ord("C")  # PG_DIAG_SQLSTATE
_PRIMARY: Final = ord("M")  # PG_DIAG_MESSAGE_PRIMARY


class Session:
    """A connection, used by one thread at a time."""

    def __init__(self, connection: "psycopg.Connection[Any]", *, prepares: bool = True) -> None:
        """`prepares`: statements are prepared under their names, so the connection must be ours alone."""
        self.connection, self.pg = connection, connection.pgconn
        self.pid = self.pg.backend_pid
        self.fd = self.pg.socket
        self._poll = select.poll()
        self._poll.register(self.fd, select.POLLIN)
        self._prepares = prepares
        self._prepared: set[bytes] = set()

    def run(self, *commands: Command) -> list[Result]:
        """Send commands together, in one round trip; what came of each.

        They are one transaction, unless the first is `BEGIN`: then it goes on. Raises `ServerError`, `ConnectionLost`.
        Whatever else it raises leaves the connection useless.
        """
        # Before anything is sent: a value that cannot be has to leave the connection as it is.
        encoded = [(statement, [_encoded(value) for value in parameters]) for statement, parameters in commands]
        pg = self.pg
        results: list[Result] = []
        failure: ServerError | None = None
        try:
            pg.enter_pipeline_mode()
            prepares = iter(self._send(encoded))
            for answer in self._answers():
                name = next(prepares, b"")  # a connection that ends says so unasked
                if answer.status == _FATAL:
                    failure = failure or _error(answer)
                elif answer.status != _ABORTED:
                    if name:
                        self._prepared.add(name)
                    else:
                        results.append(_result(answer))
            pg.exit_pipeline_mode()
        except Exception as error:
            if pg.status != _GOOD:
                raise ConnectionLost(_words(str(error).encode())) from None
            raise
        if failure is not None:
            raise failure
        return results

    def _send(self, commands: Sequence[tuple[Statement, list[bytes | None]]]) -> list[bytes]:
        """For each answer that will come: the name of the statement that is prepared, if that is what it answers."""
        answers = []
        for (name, sql), values in commands:
            if not name or not self._prepares:
                self.pg.send_query_params(sql, values)
            else:
                if name not in self._prepared and name not in answers:
                    self.pg.send_prepare(name, sql)
                    answers.append(name)
                self.pg.send_query_prepared(name, values)
            answers.append(b"")
        self.pg.pipeline_sync()
        return answers

    def _answers(self) -> "Iterator[PGresult]":
        """What the server answers, up to the end."""
        pg = self.pg
        unsent = pg.flush() != 0
        while True:
            while unsent or pg.is_busy():
                unsent = self._wait(unsent)
            answer = pg.get_result()
            if answer is None:  # the end of one statement's answers
                if pg.status != _GOOD:
                    raise ConnectionLost(_words(pg.error_message))
            elif answer.status == _SYNC:
                return
            else:
                yield answer

    def _wait(self, unsent: bool) -> bool:
        """Wait until the server can take more, or has something to say; whether more is to be sent."""
        if unsent:
            self._poll.modify(self.fd, select.POLLIN | select.POLLOUT)
        try:
            ready = self._poll.poll()[0][1]
        finally:
            if unsent:
                self._poll.modify(self.fd, select.POLLIN)
        if ready & ~select.POLLOUT:
            self.pg.consume_input()
        return unsent and self.pg.flush() != 0

    def disturbed(self) -> bool:
        """Has the server said anything unasked? To a connection that is idle that is most often its end."""
        return bool(self._poll.poll(0)) or self.pg.status != _GOOD

    def news(self) -> "Iterator[PGnotify]":
        """The notifications that have come. Raises `ConnectionLost`."""
        while self._poll.poll(0):
            try:
                self.pg.consume_input()
            except Exception as error:  # noqa: BLE001 -- whatever libpq says
                raise ConnectionLost(_words(str(error).encode())) from None
        while (told := self.pg.notifies()) is not None:
            yield told

    def busy(self) -> bool:
        """Is it anything but ready for the next transaction?"""
        return self.pg.status != _GOOD or self.pg.transaction_status != 0 or self.pg.pipeline_status != 0

    def close(self) -> None:
        """End it."""
        self.connection.close()


def _error(answer: "PGresult") -> ServerError:
    sqlstate, words = answer.error_field(_SQLSTATE) or b"", answer.error_field(_PRIMARY) or b""
    return ServerError(sqlstate.decode(), _words(words))


def _words(message: bytes) -> str:
    return " ".join(message.decode("utf-8", "replace").split())


# Values ------------------------------------------------------------------------------------------------------------


def _encoded(value: Value) -> bytes | None:
    if isinstance(value, str):
        return (value if isinstance(value, Array) else _stored(value)).encode()
    if value is None:
        return None
    if isinstance(value, bytes):
        return b"\\x" + value.hex().encode()
    return repr(value).encode()


def _stored(text: str) -> str:
    if "\\" in text or "\0" in text:
        return text.replace("\\", "\\\\").replace("\0", "\\0")
    return text


def _text(stored: bytes) -> str:
    text = stored.decode()
    if "\\" in text:
        return _ESCAPED.sub(lambda found: "\0" if found[0] == "\\0" else "\\", text)
    return text


_ESCAPED: Final = re.compile(r"\\[0\\]")


def _bytes(stored: bytes) -> bytes:
    return bytes.fromhex(stored[2:].decode())


_LOADERS: Final[dict[int, Callable[[bytes], object]]] = {
    16: lambda stored: stored == b"t",
    17: _bytes,
    20: int,
    21: int,
    23: int,
    701: float,
}


def _result(result: "PGresult") -> Result:
    loaders = [_LOADERS.get(result.ftype(column), _text) for column in range(result.nfields)]
    columns = list(enumerate(loaders))
    value = result.get_value
    rows = []
    for row in range(result.ntuples):
        cells = [(value(row, column), load) for column, load in columns]
        rows.append(tuple([None if cell is None else load(cell) for cell, load in cells]))
    return Result(rows, result.command_tuples or 0)


class Array(str):
    """A list as PostgreSQL reads it, its texts escaped already."""

    __slots__ = ()


def numbers(values: Iterable[float | None]) -> Array:
    """A list of whole or other numbers."""
    return Array("{" + ",".join(["NULL" if value is None else repr(value) for value in values]) + "}")


def texts(values: Iterable[str | None]) -> Array:
    """A list of texts."""
    return Array("{" + ",".join(["NULL" if value is None else _quoted(_stored(value)) for value in values]) + "}")


def blobs(values: Iterable[bytes | None]) -> Array:
    """A list of bytes."""
    return Array("{" + ",".join(["NULL" if value is None else f'"\\\\x{value.hex()}"' for value in values]) + "}")


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
