"""Workers that are event loops: one worker with many slots, for `async` functions by the thousand."""

from lifecycle.consumer.workers.base import WorkerContext, WorkerHandle, WorkerOptions
from lifecycle.consumer.workers.thread import ThreadType, ThreadWorker
from lifecycle.execution.async_runner import AsyncRunner

__all__ = ["AsyncioType"]


class AsyncioType(ThreadType):
    """One event loop runs `async` functions, thousands at once; plain functions run in threads beside it."""

    def worker_count(self, options: WorkerOptions) -> int:
        """Return one: the worker has as many slots as there are to be workers."""
        del options
        return 1

    def new_worker(self, context: WorkerContext, name: str) -> WorkerHandle:
        """Return a loop, with a thread that claims its tasks and settles their outcomes."""
        slots = context.options.workers
        return ThreadWorker(context, name, AsyncRunner(context.engine, slots, context.enter_worker_thread))
