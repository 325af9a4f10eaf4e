"""``redis://`` and ``rediss://`` URLs: parsed and checked when the queue is declared."""

import math
import re
import socket
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import SplitResult, quote

import attrs

from lifecycle.errors import ConfigurationError
from lifecycle.storage.redis.connection import driver
from lifecycle.validation import unquoted

__all__ = ["ConnectionSettings", "parsed"]

DEFAULT_PORT: Final = 6379
DEFAULT_TIMEOUT_SECONDS: Final = 10.0
DEFAULT_PATIENCE_SECONDS: Final = 5.0
DEFAULT_PREFIX: Final = "lifecycle"
_TLS_OPTIONS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname", "ssl_cert_reqs")
_KEEPALIVE_OPTIONS: Final = {
    getattr(socket, f"TCP_KEEP{name}"): value
    for name, value in (("IDLE", 30), ("INTVL", 10), ("CNT", 3))
    if hasattr(socket, f"TCP_KEEP{name}")
}
"""With these a lost server is noticed within a minute."""


@attrs.frozen
class ConnectionSettings:
    """Address of a server, and options of the connections."""

    parameters: Mapping[str, Any] = attrs.field(repr=False)
    """Parameters of redis-py's connection class, the password included."""
    tls: bool
    prefix: str
    """Prefix of all keys."""
    patience: float
    """Seconds for which a call tries to replace a lost connection."""

    @property
    def location(self) -> str:
        """The URL without its password and options."""
        host, port, database, user = (self.parameters[name] for name in ("host", "port", "db", "username"))
        scheme, address = "rediss" if self.tls else "redis", f"[{host}]" if ":" in host else host
        return f"{scheme}://{f'{quote(user)}@' if user else ''}{address}:{port}/{database}"


def parsed(url: SplitResult, options: dict[str, str]) -> ConnectionSettings:
    """Return the settings in a URL. Raises `ConfigurationError`; the message contains no part that may be secret."""
    driver()
    options, tls = dict(options), url.scheme == "rediss"
    timeout = _seconds("timeout", options.pop("timeout", str(DEFAULT_TIMEOUT_SECONDS)))
    patience = _seconds("patience", options.pop("patience", str(DEFAULT_PATIENCE_SECONDS)))
    prefix = options.pop("prefix", DEFAULT_PREFIX)
    if not re.fullmatch(r"[\w.-]+", prefix, re.ASCII):
        raise ConfigurationError("prefix in a redis URL: it takes letters, digits, dots, dashes and underscores")
    if timeout == 0:
        raise ConfigurationError("timeout in a redis URL: it takes seconds, more than 0")
    tls_options = {name: _tls_option(name, options.pop(name)) for name in _TLS_OPTIONS if tls and name in options}
    if options:
        more = f", and with rediss:// {', '.join(_TLS_OPTIONS)}"
        raise ConfigurationError(
            f"no option {', '.join(options)} in a redis URL: there are prefix, timeout and patience{more}"
        )
    database = url.path.removeprefix("/") or "0"
    if not (database.isascii() and database.isdigit()):
        raise ConfigurationError("the path of a redis URL is the number of a database, as in redis://host:6379/0")
    try:
        host, port = url.hostname or "127.0.0.1", url.port or DEFAULT_PORT
    except ValueError:  # its message repeats a part of the URL
        raise ConfigurationError("the port in a redis URL is none: write it as in redis://host:6379/0") from None
    parameters = {
        "host": host,
        "port": port,
        "db": int(database),
        "username": unquoted(url.username) if url.username else None,
        "password": unquoted(url.password) if url.password else None,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "socket_keepalive": True,
        "socket_keepalive_options": _KEEPALIVE_OPTIONS,
        "client_name": "lifecycle",
    }
    return ConnectionSettings(parameters | tls_options, tls, prefix, patience)


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ConfigurationError(f"{name} in a redis URL: it takes seconds, 0 or more")
    return seconds


def _tls_option(name: str, text: str) -> str | bool:
    if name == "ssl_check_hostname":
        if text not in ("yes", "no"):
            raise ConfigurationError("ssl_check_hostname in a redis URL: it takes yes or no")
        return text == "yes"
    if name == "ssl_cert_reqs" and text not in ("none", "optional", "required"):
        raise ConfigurationError("ssl_cert_reqs in a redis URL: it takes none, optional or required")
    return text
