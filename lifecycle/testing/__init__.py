"""What tests of a queue, and of programs that use one, are made with.

`VirtualClock`, `check`, `Checker` and `simulate` need nothing more. `StorageSpec`, `QueueSpec` and the strategies need
``hypothesis``: ``pip install 'task-lifecycle[testing]'``.
"""

from typing import TYPE_CHECKING, NoReturn

from lifecycle.checking import Checker, IllegalSequence, check
from lifecycle.testing.chaos import Run, simulate
from lifecycle.testing.clock import VirtualClock
from lifecycle.testing.simulation import Violation, World

__all__ = [
    "Checker", "Fault", "IllegalHistory", "IllegalSequence", "QueueSpec", "Run", "Step", "StorageSpec", "Violation",
    "VirtualClock", "World", "check", "illegal_histories", "legal_histories", "lifecycles", "outcomes", "schedules",
    "simulate", "streams", "tasks",
]  # fmt: skip

try:
    from lifecycle.testing.queue_spec import QueueSpec
    from lifecycle.testing.storage_spec import StorageSpec
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
