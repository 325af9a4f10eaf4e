"""Task queue in which every task is an explicit finite-state machine.

The table `LIFECYCLE` defines the states and transitions, and a `TaskQueue` moves tasks only by this table. Start with
the README.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lifecycle.api import *  # noqa: F403 -- for type checkers; `__all__` of that module lists the names
    from lifecycle.consumer.consumer import Consumer as Consumer


def __getattr__(name: str) -> object:
    """Import a public name at its first use: ``lifecycle --help`` needs none, and few programs need `Consumer`."""
    import lifecycle.api

    value: object
    if name == "__all__":
        value = [*lifecycle.api.__all__, "Consumer"]
    elif name == "Consumer":
        import lifecycle.consumer.consumer

        value = lifecycle.consumer.consumer.Consumer
    elif name in lifecycle.api.__all__:
        value = getattr(lifecycle.api, name)
    else:
        raise AttributeError(f"module 'lifecycle' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    import lifecycle.api

    return sorted({*globals(), *lifecycle.api.__all__, "Consumer"})
