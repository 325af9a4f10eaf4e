"""Stores of tasks: one protocol, an adapter for each store, and the URLs that select them."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

from lifecycle.errors import ConfigurationError
from lifecycle.storage.base import Storage
from lifecycle.storage.memory import MemoryStorage
from lifecycle.storage.sqlite.storage import SQLiteStorage
from lifecycle.validation import text, unquoted

__all__ = ["SCHEMES", "MemoryStorage", "SQLiteStorage", "Storage", "open_storage"]

_PATH_LIMIT: Final = 4096
"""Longest path of a file, in characters."""


def _memory(url: SplitResult, queue: str, options: dict[str, str]) -> Storage:
    del queue  # no other queue can share the memory
    if url.netloc or url.path or options:
        raise ConfigurationError("memory:// takes neither host, path nor options: each queue has a memory of its own")
    return MemoryStorage()


def _sqlite(url: SplitResult, queue: str, options: dict[str, str]) -> Storage:
    path = unquoted(url.path.removeprefix("/"))
    if url.netloc or not path:
        raise ConfigurationError(
            "a sqlite URL has three slashes and a file (sqlite:///app.db), four with an absolute path (sqlite:////var/lib/app.db)"
        )
    timeout = options.pop("timeout", "60")
    try:
        seconds = float(timeout)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ConfigurationError("timeout in a sqlite URL: must be a number of seconds, 0 or more")
    synchronous = options.pop("synchronous", "normal")
    mode = options.pop("mode", "rwc")
    if mode not in ("rwc", "ro"):
        raise ConfigurationError("mode in a sqlite URL: must be ro (read only) or rwc (read, write and create)")
    if options:
        unknown = ", ".join(options)
        raise ConfigurationError(f"unknown option {unknown} in a sqlite URL: there are mode, synchronous and timeout")
    read_only = mode == "ro"
    return SQLiteStorage(_file(path), queue, synchronous=synchronous.lower(), timeout=seconds, read_only=read_only)


def _file(path: object) -> str:
    """Return the absolute path of a SQLite file: a later change of the current folder changes nothing."""
    path = text(path, "file", at_most=_PATH_LIMIT)
    if path == ":memory:":
        raise ConfigurationError("sqlite:///:memory: would be visible to one connection only: use memory://")
    try:
        return str(Path(path).absolute())
    except OSError as error:
        raise ConfigurationError(f"the current folder is gone ({error.strerror}): name an absolute path") from None


def _postgres(url: SplitResult, queue: str, options: dict[str, str]) -> Storage:
    from lifecycle.storage.postgres.storage import PostgresStorage
    from lifecycle.storage.postgres.url import parsed

    return PostgresStorage(parsed(url, options), queue)


def _redis(url: SplitResult, queue: str, options: dict[str, str]) -> Storage:
    from lifecycle.storage.redis.storage import RedisStorage
    from lifecycle.storage.redis.url import parsed

    return RedisStorage(parsed(url, options), queue)


SCHEMES: Final[Mapping[str, Callable[[SplitResult, str, dict[str, str]], Storage]]] = {
    "memory": _memory,
    "sqlite": _sqlite,
    "postgresql": _postgres,
    "postgres": _postgres,
    "redis": _redis,
    "rediss": _redis,
}
"""URL scheme → function that opens a store, given the URL, the name of the queue and the options of the URL."""


def open_storage(url: str | os.PathLike[str], queue: str) -> Storage:
    """Return the store at a URL. No connection is opened and no file is created before the first call.

    Raises `ConfigurationError` for an invalid URL. No error repeats the URL, since a URL can contain a password.

    :param url: see `SCHEMES`; a path is that of a SQLite file.
    """
    if isinstance(url, os.PathLike):
        return SQLiteStorage(_file(os.fspath(url)), queue)
    if not isinstance(url, str):
        raise ConfigurationError(f"url: must be a str or a Path, as in sqlite:///app.db, not {type(url).__qualname__}")
    if not url.isprintable():  # urlsplit would drop line breaks in silence
        raise ConfigurationError("url: must not contain control characters; write them as %0A and the like")
    try:
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, strict_parsing=True, keep_blank_values=True, errors="strict")
    except ValueError:  # its message repeats a part of the URL
        raise ConfigurationError("the text is no URL of a store: it is malformed, or an option has no value") from None
    options = dict(pairs)
    if len(options) < len(pairs):
        raise ConfigurationError("the URL of the store has an option twice: leave out one of the two")
    if parts.scheme not in SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        fault = f"unknown scheme {parts.scheme}://" if parts.scheme else "the URL of the store has no scheme"
        raise ConfigurationError(f"{fault}: there are {known}, as in sqlite:///app.db")
    if "#" in url:
        raise ConfigurationError("the URL of the store contains a #, which begins no part of it: write # as %23")
    if parts.netloc.count("@") > 1 or (parts.netloc and "@" in parts.path):
        raise ConfigurationError(
            "user and password in the URL of the store contain a character with a meaning in URLs: write @ as %40, / as"
            " %2F, : as %3A, ? as %3F, # as %23"
        )
    return SCHEMES[parts.scheme](parts, queue, options)
