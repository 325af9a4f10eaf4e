"""What a ``postgresql://`` URL says, and whether it can be right."""

from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import SplitResult

from lifecycle.errors import ConfigurationError
from lifecycle.storage.postgres.server import driver

__all__ = ["ConnectionSettings", "parsed"]

POOL_SIZE: Final = 10
SCHEMA: Final = "lifecycle"
LONGEST: Final = 63
"""Bytes in a name; PostgreSQL cuts longer ones."""


class ConnectionSettings(NamedTuple):
    """Where a queue is, and how it is reached."""

    parameters: Mapping[str, str]
    """libpq's own."""
    schema: str
    migrate: bool
    pool_size: int


def parsed(url: SplitResult, options: dict[str, str]) -> ConnectionSettings:
    """What the URL says. Raises `ConfigurationError`, which never repeats what may be secret."""
    options = dict(options)
    migrate, size, schema = options.pop("migrate", "yes"), options.pop("pool_size", ""), options.pop("schema", SCHEMA)
    if migrate not in ("yes", "no"):
        raise ConfigurationError("migrate in a postgresql URL: it takes yes or no")
    if size and not (size.isascii() and size.isdigit() and int(size) > 0):
        raise ConfigurationError("pool_size in a postgresql URL: it takes a whole number, 1 or more")
    if not schema or "\0" in schema or schema.startswith("pg_") or len(schema.encode(errors="replace")) > LONGEST:
        raise ConfigurationError(
            f"schema in a postgresql URL: it takes a name of up to {LONGEST} bytes that does not begin with pg_"
        )
    psycopg = driver()
    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    if unknown := [name for name in options if name not in known]:
        raise ConfigurationError(
            f"no option {', '.join(unknown)} in a postgresql URL: there are schema, migrate and pool_size, and those of"
            " libpq (sslmode, connect_timeout, …)"
        )
    try:
        told = psycopg.conninfo.conninfo_to_dict(f"postgresql://{url.netloc}{url.path}")
    except psycopg.Error:  # whose message repeats a part of it
        raise ConfigurationError(
            "this is no URL of a PostgreSQL database: write it as in postgresql://user:password@host:5432/database, and"
            " characters that mean something in URLs as %3F and the like"
        ) from None
    return ConnectionSettings({**told, **options}, schema, migrate == "yes", int(size or POOL_SIZE))
