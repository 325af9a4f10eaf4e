"""A class for each store, with the options of Huey's class of that name."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast
from urllib.parse import quote, urlencode

from lifecycle.core.serializer import Serializer
from lifecycle.core.task import Task
from lifecycle.errors import ConfigurationError
from lifecycle.execution.new_tasks import prepare
from lifecycle.huey.queue import Huey
from lifecycle.huey.workflows import node_of
from lifecycle.validation import duration, text
from lifecycle.workflows.planning import is_alone, planned_workflow

__all__ = [
    "BlackHoleHuey", "CySqliteHuey", "FileHuey", "MemoryHuey", "PostgresHuey", "PriorityRedisExpireHuey",
    "PriorityRedisHuey", "RedisExpireHuey", "RedisHuey", "SqliteHuey",
]  # fmt: skip


class MemoryHuey(Huey):
    """A queue in the memory of this process."""

    def __init__(self, name: str = "huey", **options: object) -> None:
        """`options`: those of `Huey`."""
        _start(self, name, "memory://", options)


class SqliteHuey(Huey):
    """A queue in a SQLite file."""

    def __init__(
        self,
        name: str = "huey",
        filename: str | Path = "huey.db",
        *,
        fsync: bool | None = None,
        timeout: float = 5,
        cache_mb: float = 8,
        journal_mode: str = "wal",
        strict_fifo: bool = False,
        create_tables: bool = True,
        **options: object,
    ) -> None:
        """Raises `ConfigurationError` for an invalid option.

        :param filename: a file of this library; a file of Huey's is refused at the first use, and left as it is.
        :param fsync: wait at each commit until the disk has the data, which also a crash of the machine then keeps.
        :param timeout: seconds to wait for another program's lock; at least 60 here.
        :param cache_mb: no effect, as `journal_mode` (always WAL), `strict_fifo` (tasks always start in order) and
            `create_tables` (always).
        """
        del cache_mb, journal_mode, strict_fifo, create_tables
        file = text(str(filename) if isinstance(filename, Path) else filename, "filename", at_most=4096)
        if file == ":memory:":
            raise ConfigurationError("filename=':memory:': no other process could see it; take MemoryHuey")
        query = urlencode({"synchronous": "full" if fsync else "normal", "timeout": max(float(timeout), 60.0)})
        _start(self, name, f"sqlite:///{quote(str(Path(file).absolute()))}?{query}", options)


class CySqliteHuey(SqliteHuey):
    """A queue in a SQLite file, by Python's own module."""

    def __init__(
        self, name: str = "huey", filename: str | Path = "huey.db", pragmas: object = None, **options: object
    ) -> None:
        """`pragmas`: no effect; the rest as in `SqliteHuey`."""
        del pragmas
        _init(super().__init__, name, filename, options)


class FileHuey(SqliteHuey):
    """A queue in a folder: here one SQLite file in the folder holds all."""

    def __init__(self, name: str = "huey", path: str | Path = "", *, levels: int = 2, use_thread_lock: bool = False,
                 **options: object) -> None:  # fmt: skip
        """`path`: the folder; it must exist. `levels` and `use_thread_lock` have no effect."""
        del levels, use_thread_lock
        folder = text(str(path), "path", at_most=4000)
        _init(super().__init__, name, Path(folder) / "lifecycle.db", options)


class RedisHuey(Huey):
    """A queue on a Redis server."""

    def __init__(
        self,
        name: str = "huey",
        *,
        url: str | None = None,
        host: str | None = None,
        port: int | None = None,
        db: int | None = None,
        username: str | None = None,
        password: str | None = None,
        ssl: bool = False,
        connection_pool: object = None,
        blocking: bool = True,
        read_timeout: float = 1,
        client_name: str | None = None,
        notify_result: bool = False,
        notify_result_ttl: float = 60,
        clean_name: bool = True,
        **options: object,
    ) -> None:
        """Raises `ConfigurationError` for an invalid option, and for a pool of connections of the program's own.

        :param url: ``redis://…``, in place of the options after it.
        :param blocking: no effect, as all options after it: a consumer waits for the server's notifications.
        """
        del blocking, read_timeout, client_name, notify_result, notify_result_ttl, clean_name
        if connection_pool is not None:
            raise ConfigurationError(
                "connection_pool: the queue has connections of its own: give url=, or host= and port="
            )
        if url is not None and any(part is not None for part in (host, port, db, username, password)):
            raise ConfigurationError("url: give the URL, or host, port, db, username and password, not both")
        if url is None:
            user = "" if username is None else quote(username, safe="")
            secret = "" if password is None else f":{quote(password, safe='')}"
            login = f"{user}{secret}@" if user or secret else ""
            url = f"redis{'s' if ssl else ''}://{login}{host or 'localhost'}:{port or 6379}/{db or 0}"
        _start(self, name, url, options)


class PriorityRedisHuey(RedisHuey):
    """A queue on a Redis server: priorities count in every queue here."""


class RedisExpireHuey(RedisHuey):
    """A queue on a Redis server whose results are deleted after a time."""

    def __init__(self, name: str = "huey", expire_time: float = 86_400, **options: object) -> None:
        """`expire_time`: seconds after which a task at rest is deleted, with its result."""
        _init(super().__init__, name, options)
        self.queue.retention = duration(expire_time, "expire_time")


class PriorityRedisExpireHuey(RedisExpireHuey):
    """A queue on a Redis server whose results are deleted after a time."""


class PostgresHuey(Huey):
    """A queue in a PostgreSQL database."""

    def __init__(
        self,
        name: str = "huey",
        dsn: str | None = None,
        *,
        connection: object = None,
        blocking: bool = True,
        read_timeout: float = 1,
        table_prefix: str = "huey",
        create_tables: bool = True,
        results: bool = True,
        store_none: bool = False,
        utc: bool = True,
        immediate: bool = False,
        serializer: Serializer | None = None,
        immediate_use_memory: bool = True,
        store_intermediate_errors: bool = True,
        **connection_params: object,
    ) -> None:
        """Raises `ConfigurationError` for an invalid option, and for a function that makes connections.

        :param dsn: ``postgresql://…``, or parameters of libpq as a text.
        :param connection_params: parameters of libpq by name.
        :param blocking: no effect, as `read_timeout`: a consumer waits for the server's notifications.
        :param table_prefix: the tables are in a schema of their own, named by ``?schema=`` in the `dsn`.
        """
        del blocking, read_timeout, table_prefix, create_tables
        if connection is not None:
            raise ConfigurationError(
                "connection: the queue makes connections of its own: give dsn=, or host=, dbname=, …"
            )
        from lifecycle.storage.postgres.url import url_of

        if dsn is None or connection_params or not dsn.startswith(("postgresql://", "postgres://")):
            dsn = url_of(dsn or "", connection_params)
        super().__init__(
            name, results, store_none, utc, immediate, serializer, immediate_use_memory=immediate_use_memory,
            store_intermediate_errors=store_intermediate_errors, url=dsn,
        )  # fmt: skip


class BlackHoleHuey(MemoryHuey):
    """A queue that drops each task: nothing is stored and nothing runs."""

    def enqueue_all(self, tasks: Iterable[object]) -> None:
        """Check the tasks, and drop them."""
        engine = self.queue.engine
        for task in tasks:
            node = node_of(task)
            new = [node] if isinstance(node, Task) and is_alone(node) else planned_workflow(engine, node).tasks
            prepare(new, engine.clock.now(), engine.serializer, engine.functions, engine.max_bytes)


def _start(huey: Huey, name: str, url: str, options: dict[str, object]) -> None:
    _init(lambda **given: Huey.__init__(huey, name, url=url, **given), options)


def _init(init: Callable[..., None], *arguments: object) -> None:
    """Call an `__init__` with options of its base class, which checks them."""
    *positional, options = arguments
    init(*positional, **cast("dict[str, object]", options))
