"""What tests of a queue, and of programs that use one, are made with.

`VirtualClock`, `check` and `Checker` need nothing more. The strategies need ``hypothesis``, as does
`lifecycle.testing.storage_spec`: ``pip install 'task-lifecycle[testing]'``.
"""

from typing import TYPE_CHECKING, NoReturn

from lifecycle.checking import Checker, IllegalSequence, check
from lifecycle.testing.clock import VirtualClock

__all__ = [
    "Checker", "Fault", "IllegalHistory", "IllegalSequence", "Step", "VirtualClock", "check", "illegal_histories",
    "legal_histories", "lifecycles", "outcomes", "schedules", "streams", "tasks",
]  # fmt: skip

try:
    from lifecycle.testing.strategies import (
        Fault,
        IllegalHistory,
        Step,
        illegal_histories,
        legal_histories,
        lifecycles,
        outcomes,
        schedules,
        streams,
        tasks,
    )
except ModuleNotFoundError as missing:
    if missing.name != "hypothesis":
        raise

if not TYPE_CHECKING:  # a type checker would take it that every name is there

    def __getattr__(name: str) -> NoReturn:
        """Says what is missing, where a name that needs it is asked for."""
        if name in __all__:
            needs = "needs hypothesis: pip install 'task-lifecycle[testing]'"
            raise ImportError(f"lifecycle.testing.{name} {needs}", name="hypothesis")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
