"""Workers that are greenlets: the threads of a process that gevent has patched."""

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

from lifecycle import ConfigurationError
from lifecycle.clock import pause
from lifecycle.guard import Reach

__all__ = ["GREENLETS", "again", "require"]


class _Greenlets:
    """Exceptions for a body that waits, in a greenlet: between two bytecodes nothing reaches it."""

    def here(self) -> object:
        return _gevent().getcurrent()

    def throw(self, there: object, error: type[BaseException]) -> None:
        _gevent().kill(there, error)  # soon: it waits for nobody


GREENLETS: Final[Reach] = _Greenlets()


def require() -> None:
    """Raise `ConfigurationError` unless threads are greenlets here, and were when this package was imported."""
    if find_spec("gevent") is None:
        raise ConfigurationError("greenlets need gevent: pip install 'task-lifecycle[greenlet]'")
    if not _patched() or not pause.__module__.startswith("gevent"):
        raise ConfigurationError(
            "greenlets need gevent.monkey.patch_all(), before anything else is imported; `lifecycle run -k greenlet`"
            " does it"
        )


def again() -> None:
    """Unless gevent has patched this process, run the same command in one that it has: does not return then."""
    if find_spec("gevent") is not None and not _patched():
        os.execv(sys.executable, [sys.executable, "-m", "gevent.monkey", "--module", "consumer", *sys.argv[1:]])  # noqa: S606


def _patched() -> bool:
    patched: bool = import_module("gevent.monkey").is_module_patched("threading")
    return patched


def _gevent() -> Any:
    return import_module("gevent")
