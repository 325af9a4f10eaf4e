"""Results for callers in an event loop, as in `huey.contrib.asyncio`."""

import asyncio
from datetime import timedelta
from typing import TypeVar

from lifecycle.huey.results import Result, ResultGroup

__all__ = ["aget_result", "aget_result_group"]

R = TypeVar("R")


async def aget_result(
    res: Result[R],
    backoff: float = 1.15,
    max_delay: float = 1.0,
    preserve: bool = False,
    timeout: float | timedelta | None = None,  # noqa: ASYNC109 -- Huey's name
) -> R | None:
    """Return the value of a task, and wait for it in a thread; the errors and options are those of `Result.get`."""
    del backoff, max_delay, preserve
    return await asyncio.to_thread(res.get, True, timeout)


async def aget_result_group(
    rg: ResultGroup[R],
    backoff: float = 1.15,
    max_delay: float = 1.0,
    preserve: bool = False,
    timeout: float | timedelta | None = None,  # noqa: ASYNC109 -- Huey's name
) -> list[R | None]:
    """Return the values of a group in order, and wait for all of them."""
    del backoff, max_delay, preserve
    return list(await asyncio.gather(*(aget_result(result, timeout=timeout) for result in rg)))
