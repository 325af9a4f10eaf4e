"""Tools for tests of a queue, and of programs that use one.

`StorageSpec`, `QueueSpec` and the strategies need ``hypothesis``: ``pip install 'task-lifecycle[testing]'``. They are
imported at their first use.
"""

from typing import TYPE_CHECKING

from lifecycle.analysis.checker import Checker, IllegalSequence, check
from lifecycle.testing.assertions import assert_enqueued, refute_enqueued
from lifecycle.testing.inline import drain, perform, testing_mode
from lifecycle.testing.simulation.audit import Violation
from lifecycle.testing.simulation.random_run import Run, simulate
from lifecycle.testing.simulation.world import World
from lifecycle.virtual_clock import VirtualClock

__all__ = [  # noqa: RUF022 -- the names that need Hypothesis come last
    "Checker", "IllegalSequence", "Run", "Violation", "VirtualClock", "World", "assert_enqueued", "check", "drain",
    "perform", "refute_enqueued", "simulate", "testing_mode",
    "Fault", "IllegalHistory", "QueueSpec", "Step", "StorageSpec", "illegal_histories", "legal_histories",  # noqa: F405
    "lifecycles", "outcomes", "schedules", "streams", "tasks",  # noqa: F405
]  # fmt: skip

if TYPE_CHECKING:
    from lifecycle.testing.property_based import *  # noqa: F403 -- for type checkers; the names stand there
else:

    def __getattr__(name: str) -> object:
        """Import the names that need Hypothesis when one is first used; raise `ImportError` if it is not installed."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            from lifecycle.testing import property_based
        except ModuleNotFoundError as missing:
            if missing.name != "hypothesis":
                raise
            needs = "needs hypothesis: pip install 'task-lifecycle[testing]'"
            raise ImportError(f"lifecycle.testing.{name} {needs}", name="hypothesis") from None
        return getattr(property_based, name)
