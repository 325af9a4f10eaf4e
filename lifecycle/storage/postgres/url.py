"""``postgresql://`` URLs: parsed and checked when the queue is declared."""

from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import SplitResult, quote, urlencode

from lifecycle.errors import ConfigurationError
from lifecycle.storage.postgres.session import driver

__all__ = ["ConnectionSettings", "parsed", "url_of"]

DEFAULT_POOL_SIZE: Final = 10
DEFAULT_SCHEMA: Final = "lifecycle"
NAME_LIMIT_BYTES: Final = 63
"""Longest name of a schema; PostgreSQL truncates longer names."""


class ConnectionSettings(NamedTuple):
    """Schema of a queue, and parameters of the connections."""

    parameters: Mapping[str, str]
    """Parameters of libpq."""
    schema: str
    migrate: bool
    pool_size: int
    """Largest number of connections, the listener's not counted."""

    @property
    def location(self) -> str:
        """The URL without its password and options; parts that libpq takes from its environment are left out."""
        user, host, port, database = (self.parameters.get(name, "") for name in ("user", "host", "port", "dbname"))
        schema = "" if self.schema == DEFAULT_SCHEMA else f"?schema={quote(self.schema)}"
        address = f"{quote(user)}{user and '@'}{quote(host, safe=',:')}{port and ':'}{port}"
        return f"postgresql://{address}/{quote(database)}{schema}"


def parsed(url: SplitResult, options: dict[str, str]) -> ConnectionSettings:
    """Return the settings in a URL. Raises `ConfigurationError`; the message contains no part that may be secret."""
    options = dict(options)
    migrate, pool_size = options.pop("migrate", "yes"), options.pop("pool_size", "")
    schema = options.pop("schema", DEFAULT_SCHEMA)
    if migrate not in ("yes", "no"):
        raise ConfigurationError("migrate in a postgresql URL: it takes yes or no")
    if pool_size and not (pool_size.isascii() and pool_size.isdigit() and int(pool_size) > 0):
        raise ConfigurationError("pool_size in a postgresql URL: it takes a whole number, 1 or more")
    if (
        not schema
        or "\0" in schema
        or schema.startswith("pg_")
        or len(schema.encode(errors="replace")) > NAME_LIMIT_BYTES
    ):
        raise ConfigurationError(
            f"schema in a postgresql URL: it takes a name of up to {NAME_LIMIT_BYTES} bytes that does not begin"
            " with pg_"
        )
    psycopg = driver()
    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    if unknown := [name for name in options if name not in known]:
        raise ConfigurationError(
            f"no option {', '.join(unknown)} in a postgresql URL: there are schema, migrate and pool_size, and those of"
            " libpq (sslmode, connect_timeout, …)"
        )
    try:
        parameters = psycopg.conninfo.conninfo_to_dict(f"postgresql://{url.netloc}{url.path}")
    except psycopg.Error:  # its message repeats a part of the URL
        raise ConfigurationError(
            "this is no URL of a PostgreSQL database: write it as in postgresql://user:password@host:5432/database, and"
            " characters that mean something in URLs as %3F and the like"
        ) from None
    return ConnectionSettings({**parameters, **options}, schema, migrate == "yes", int(pool_size or DEFAULT_POOL_SIZE))


def url_of(dsn: str, parameters: Mapping[str, object]) -> str:
    """Return the URL for parameters of libpq, given as a text, by name, or both.

    Raises `ConfigurationError` for a parameter that libpq does not know; the message contains no value.
    """
    psycopg = driver()
    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()} | {"database"}
    if unknown := [name for name in parameters if name not in known]:
        raise ConfigurationError(f"no parameter {', '.join(unknown)} of a PostgreSQL database: see those of libpq")
    given = {"dbname" if name == "database" else name: value for name, value in parameters.items()}
    try:
        found = psycopg.conninfo.conninfo_to_dict(dsn, **given)
    except psycopg.Error:  # its message repeats a part of the text
        raise ConfigurationError(
            "dsn: write postgresql://user@host/database, or parameters as in 'dbname=app'"
        ) from None
    database = quote(str(found.pop("dbname", "")), safe="")
    return f"postgresql:///{database}" + (f"?{urlencode(found)}" if found else "")
