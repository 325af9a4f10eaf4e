"""Functions of a queue whose calls fail on demand."""

from collections.abc import Awaitable, Callable
from typing import Any, cast

import attrs

from lifecycle.execution.registry import Function

__all__ = ["FaultyFunctions"]


class FaultyFunctions(dict[str, Function]):
    """A queue's functions, of which the next call may fail."""

    def __init__(
        self,
        functions: dict[str, Function],
        next_failure: Callable[[], tuple[BaseException, bool] | None],
        unknown: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        """`next_failure`: the exception of the next call, and whether it comes after the function or instead of it.

        `unknown`: returns the functions that the present process does not know.
        """
        super().__init__(functions)
        self._functions, self._next_failure, self._unknown = functions, next_failure, unknown

    def __setitem__(self, name: str, function: Function) -> None:
        self._functions[name] = function  # declared during the simulation, and kept after it
        super().__setitem__(name, function)

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) and name not in self._unknown()

    def get(self, name: str, default: Any = None) -> Any:
        """Return the function, for one call."""
        function = super().get(name)
        if function is None or (failure := self._next_failure()) is None:
            return default if function is None else function
        error, after = failure

        def fail(*arguments: object, **options: object) -> object:
            if after:
                function.call(*arguments, **options)
            raise error

        async def fail_async(*arguments: object, **options: object) -> object:
            if after:
                await cast("Awaitable[object]", function.call(*arguments, **options))
            raise error

        return attrs.evolve(function, call=fail_async if function.is_async else fail)
