"""What tests of a queue, and of programs that use one, are made with.

`StorageSpec`, `QueueSpec` and the strategies need ``hypothesis``: ``pip install 'task-lifecycle[testing]'``. All else
needs nothing more.
"""

from typing import TYPE_CHECKING, NoReturn

from lifecycle.analysis.checker import Checker, IllegalSequence, check
from lifecycle.testing.assertions import assert_enqueued, refute_enqueued
from lifecycle.testing.inline import drain, perform, testing_mode
from lifecycle.testing.simulation.random_run import Run, simulate
from lifecycle.testing.simulation.world import Violation, World
from lifecycle.virtual_clock import VirtualClock

__all__ = [
    "Checker", "Fault", "IllegalHistory", "IllegalSequence", "QueueSpec", "Run", "Step", "StorageSpec", "Violation",
    "VirtualClock", "World", "assert_enqueued", "check", "drain", "illegal_histories", "legal_histories", "lifecycles",
    "outcomes", "perform", "refute_enqueued", "schedules", "simulate", "streams", "tasks", "testing_mode",
]  # fmt: skip

try:
    from lifecycle.testing.simulation.queue_spec import QueueSpec
    from lifecycle.testing.storage_spec.spec import StorageSpec
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
