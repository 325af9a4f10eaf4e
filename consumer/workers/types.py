"""The types of workers, by name. Each is a file of this package; it is imported when it is used."""

from typing import Final

from lifecycle.consumer.workers.base import WorkerType
from lifecycle.consumer.workers.thread import ThreadType
from lifecycle.errors import ConfigurationError

__all__ = ["GREENLET", "WORKER_TYPES", "find_worker_type"]

GREENLET: Final = "greenlet"
WORKER_TYPES: Final = ("thread", "process", GREENLET, "asyncio")


def find_worker_type(name: str) -> WorkerType:
    """Return the type of this name. Raises `ConfigurationError`, naming the types that there are."""
    match name:
        case "thread":
            return ThreadType()
        case "process":
            from lifecycle.consumer.workers.process import ProcessType

            return ProcessType()
        case "greenlet":
            from lifecycle.consumer.workers.gevent_ import GreenletType

            return GreenletType()
        case "asyncio":
            from lifecycle.consumer.workers.asyncio_ import AsyncioType

            return AsyncioType()
    raise ConfigurationError(f"worker_type={name!r}: there are {', '.join(WORKER_TYPES)}")
