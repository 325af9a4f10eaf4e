"""The log of a consumer's process: as the program configures it, or else lines on the standard error stream."""

import json
import logging
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import attrs

from lifecycle.errors import ConfigurationError
from lifecycle.escaping import printable_lines

__all__ = ["FORMATS", "LogOptions", "buffer_lines", "enable_loggers"]

FORMATS: Final = ("text", "json")
LINE: Final = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
LINE_ON_TERMINAL: Final = "%(name)s: %(message)s"
"""The handler for terminals adds time and level."""
FURTHER_LINE: Final = "\n  "
"""The beginning of each further line of a record."""
_INI: Final = (".ini", ".cfg", ".conf")

log = logging.getLogger("lifecycle.consumer")


@attrs.frozen
class LogOptions:
    """Options for the log of a consumer's process and of its worker processes. The program's own configuration wins."""

    level: int | None = None
    """The level of all loggers without one of their own; ``None``: the program's, or else INFO."""
    verbose: bool = False
    """True for all lines of this library; the level of other loggers stays the same."""
    line_format: str | None = None
    """One of `FORMATS`; ``None``: text."""
    config: Path | None = None
    """A file for `logging.config`: ``.ini``, ``.json`` or ``.toml``."""

    def before_import(self) -> None:
        """Read the file; called before the program's modules are imported. Raises `ConfigurationError`."""
        if self.config is not None:
            _configure_from(self.config)

    def after_import(self) -> None:
        """Configure logging unless the program's modules have done so. Raises `ConfigurationError`."""
        root, ours = logging.getLogger(), logging.getLogger("lifecycle")
        enable_loggers()
        if self.config is not None:
            _configure_from(self.config)  # again: the command line wins over a module's `dictConfig`
        elif not (root.handlers or ours.handlers):
            root.addHandler(_handler(self.line_format == "json"))
            root.setLevel(logging.INFO)
        elif self.line_format is not None:
            log.warning("the log's format is not changed: the program configures logging itself")
        if self.level is not None:
            root.setLevel(self.level)
        if self.verbose:
            ours.setLevel(logging.DEBUG)


def enable_loggers() -> None:
    """Enable this library's loggers again: `dictConfig` disables those that it does not name, unless told otherwise."""
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and f"{name}.".startswith("lifecycle."):
            logger.disabled = False


def buffer_lines() -> None:
    """Have each printed line leave the process at once, also into a pipe or a file."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            with suppress(OSError, ValueError):  # closed, or its reader is gone
                reconfigure(line_buffering=True)


def _handler(as_json: bool) -> logging.Handler:
    if not as_json and sys.stderr is not None and sys.stderr.isatty():
        from rich.console import Console
        from rich.logging import RichHandler

        handler: logging.Handler = RichHandler(console=Console(stderr=True), show_path=False, rich_tracebacks=False)
        handler.setFormatter(_LineFormatter(LINE_ON_TERMINAL))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(_JsonFormatter() if as_json else _LineFormatter(LINE))
    return handler


class _LineFormatter(logging.Formatter):
    """Formats records of this library so that no text of users in them commands a terminal, or looks like a record.

    Control characters are escaped, and further lines, as those of a traceback, begin with spaces. Records of other
    loggers are the program's own, and stay as they are.
    """

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if f"{record.name}.".startswith("lifecycle."):
            text = printable_lines(text).replace("\n", FURTHER_LINE)
        return text


class _JsonFormatter(logging.Formatter):
    """Formats each record as one line of JSON; the values of a record's arguments by name are keys of their own."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {str(key): value for key, value in _fields(record).items()}
        line |= {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info or record.exc_text:
            line["traceback"] = record.exc_text or self.formatException(record.exc_info or (None, None, None))
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        return json.dumps(line, default=repr)


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    return record.args if isinstance(record.args, Mapping) else {}


def _configure_from(path: Path) -> None:
    from logging.config import dictConfig, fileConfig

    try:
        if path.suffix in _INI:
            fileConfig(path, disable_existing_loggers=False, encoding="utf-8")
        else:
            dictConfig({"version": 1, "disable_existing_loggers": False} | _settings(path))
    except ConfigurationError:
        raise
    except Exception as error:  # noqa: BLE001 -- whatever is wrong with the file, or with a handler that it names
        raise ConfigurationError(f"log_config={path}: {type(error).__name__}: {error}") from None


def _settings(path: Path) -> dict[str, object]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        settings: object = json.loads(text)
        if isinstance(settings, dict):
            return settings
        raise ConfigurationError(f"log_config={path}: must be an object")
    if path.suffix == ".toml":
        import tomllib

        return tomllib.loads(text)
    raise ConfigurationError(f"log_config={path}: must end in {', '.join(_INI)}, .json or .toml")
