"""Functions of a queue whose calls meet with trouble."""

from collections.abc import Awaitable, Callable
from typing import Any, cast

import attrs

from lifecycle.execution.registry import Function

__all__ = ["FaultyFunctions"]


class FaultyFunctions(dict[str, Function]):
    """A queue's functions; what is called next may end otherwise than it would."""

    def __init__(
        self, functions: dict[str, Function], trouble: Callable[[], tuple[BaseException, bool] | None]
    ) -> None:
        """`trouble`: what befalls the next call: an error, and whether it comes after the body or instead of it."""
        super().__init__(functions)
        self._functions, self._trouble = functions, trouble

    def __setitem__(self, name: str, function: Function) -> None:
        self._functions[name] = function  # declared meanwhile, and meant to stay
        super().__setitem__(name, function)

    def get(self, name: str, default: Any = None) -> Any:
        """The function, for one call."""
        function = super().get(name)
        if function is None or (trouble := self._trouble()) is None:
            return default if function is None else function
        error, after = trouble

        def troubled(*arguments: object, **options: object) -> object:
            if after:
                function.call(*arguments, **options)
            raise error

        async def troubled_async(*arguments: object, **options: object) -> object:
            if after:
                await cast("Awaitable[object]", function.call(*arguments, **options))
            raise error

        return attrs.evolve(function, call=troubled_async if function.is_async else troubled)
