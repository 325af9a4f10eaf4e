"""The names of `lifecycle.testing` that need Hypothesis: strategies, and the two specifications."""

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

__all__ = [
    "Fault", "IllegalHistory", "QueueSpec", "Step", "StorageSpec", "illegal_histories", "legal_histories",
    "lifecycles", "outcomes", "schedules", "streams", "tasks",
]  # fmt: skip
