"""A task queue whose every task is an explicit finite-state machine.

`LIFECYCLE` is the table; a `TaskQueue` runs tasks by it. Start with the README.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lifecycle.api import *  # noqa: F403 -- for type checkers; the names stand there
    from lifecycle.consumer.consumer import Consumer as Consumer


def __getattr__(name: str) -> object:
    """Import the public names when one is first used. ``lifecycle --help`` needs none; few programs need `Consumer`."""
    import lifecycle.api

    found: object
    if name == "__all__":
        found = [*lifecycle.api.__all__, "Consumer"]
    elif name == "Consumer":
        import lifecycle.consumer.consumer

        found = lifecycle.consumer.consumer.Consumer
    elif name in lifecycle.api.__all__:
        found = getattr(lifecycle.api, name)
    else:
        raise AttributeError(f"module 'lifecycle' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    import lifecycle.api

    return sorted({*globals(), *lifecycle.api.__all__, "Consumer"})
