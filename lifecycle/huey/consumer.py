"""The consumer, with Huey's options."""

from lifecycle.consumer.consumer import Consumer as CoreConsumer
from lifecycle.errors import ConfigurationError
from lifecycle.hints import refuses_unknown_options
from lifecycle.huey.base import HueyBase
from lifecycle.validation import duration, flag, instance

__all__ = ["Consumer"]


class Consumer:
    """Runs the tasks of one queue in workers of its own, until it is stopped."""

    @refuses_unknown_options
    def __init__(
        self,
        huey: HueyBase,
        workers: int = 1,
        periodic: bool = True,
        initial_delay: float = 0.1,
        backoff: float = 1.15,
        max_delay: float = 10.0,
        scheduler_interval: float = 1,
        worker_type: str = "thread",
        check_worker_health: bool = True,
        health_check_interval: float = 10,
        flush_locks: bool = False,
        extra_locks: str | None = None,
        max_tasks: int | None = None,
        shutdown_timeout: float | None = None,
        graceful_signal: str = "INT",
    ) -> None:
        """Raises `ConfigurationError` for an invalid option.

        :param workers: how many tasks run at once.
        :param periodic: must be ``True``: each tick is made once, however many consumers run.
        :param initial_delay: no effect, as `backoff`, `max_delay` and `scheduler_interval`: the store wakes workers.
        :param worker_type: ``"thread"``, ``"process"``, ``"greenlet"`` or ``"asyncio"``.
        :param check_worker_health: no effect, as `health_check_interval`: dead workers are always replaced.
        :param flush_locks: free all locks when the consumer starts; not needed, since a dead holder's lock ends.
        :param extra_locks: names, separated by commas, of further locks to free: `flush_locks` frees all.
        :param max_tasks: a worker ends after so many tasks, and another takes its place.
        :param shutdown_timeout: seconds that interrupted tasks have to clean up.
        :param graceful_signal: must be ``"INT"``: this signal lets running tasks end.
        """
        del initial_delay, backoff, max_delay, scheduler_interval, check_worker_health, health_check_interval
        instance(huey, HueyBase, "huey", "must be a Huey")
        if huey.queue.immediate:
            raise ConfigurationError("immediate=True: each call runs its task, and a consumer would find none")
        if not flag(periodic, "periodic"):
            raise ConfigurationError("periodic=False: a tick is made once, by any consumer; leave the option out")
        if graceful_signal != "INT":
            raise ConfigurationError(
                f"graceful_signal={graceful_signal!r}: SIGINT lets running tasks end, SIGTERM stops them"
            )
        self.huey = huey
        self._flushes = flag(flush_locks, "flush_locks") or extra_locks is not None
        self._consumer = CoreConsumer(
            huey.queue, workers, worker_type, max_tasks=max_tasks,
            grace=2.0 if shutdown_timeout is None else duration(shutdown_timeout, "shutdown_timeout"),
            start_method="fork" if worker_type == "process" else "spawn",
        )  # fmt: skip

    def run(self) -> None:
        """Run until a signal stops the consumer."""
        self._flush()
        self._consumer.run()

    def start(self) -> None:
        """Start the workers and return."""
        self._flush()
        self._consumer.start()

    def stop(self, graceful: bool = False) -> None:
        """Stop the workers; `graceful`: let running tasks end."""
        self._consumer.stop(graceful=graceful)

    def _flush(self) -> None:
        if self._flushes:
            self.huey.queue.flush_locks()
