"""Simulated processes: threads of which one runs at a time, each only during its turn. And their heartbeats."""

import threading
from collections import Counter
from collections.abc import Callable, Collection

__all__ = ["ManualHeartbeat", "ProcessTerminated", "SimulatedProcess", "current_process"]

_thread = threading.local()


class ProcessTerminated(BaseException):
    """Raised in the thread of a simulated process by `SimulatedProcess.terminate`."""


class SimulatedProcess:
    """A process of a simulation. Its thread runs only during `step`, from one `pause` to another."""

    def __init__(
        self, name: str, main: Callable[["SimulatedProcess"], object], add_fault: Callable[[str], object]
    ) -> None:
        """`main`: everything the process does; called with the process. `add_fault`: called if it raises."""
        self.name = name
        self.idle = self.ended = self.crashed = self.frozen = self.stopping = self.terminated = False
        """`idle`: there is nothing to do. `ended`: `main` has returned or raised. `crashed`: never runs again."""
        self.unknown: frozenset[str] = frozenset()
        """The functions that its version of the program does not know."""
        self.call_started: float | None = None
        """Monotonic time at which its current call of the store began."""
        self.start_replacement: Callable[[], object] | None = None
        """Starts another process in its place, should it crash."""
        self._main, self._add_fault = main, add_fault
        self._turn, self._paused = threading.Lock(), threading.Lock()
        self._turn.acquire()
        self._paused.acquire()
        self._pauses_left = 0
        self._thread = threading.Thread(target=self._run, name=f"simulated {name}", daemon=True)

    @property
    def can_run(self) -> bool:
        """True unless the process has ended, crashed or is frozen."""
        return not (self.ended or self.crashed or self.frozen)

    def step(self, pauses: int = 1) -> None:
        """Let the process run over a number of pauses, at most until it ends or has nothing to do."""
        self._pauses_left = pauses
        if self._thread.ident is None:
            self._thread.start()
        self._turn.release()
        self._paused.acquire()

    def pause(self) -> None:
        """In its thread: end the turn, if `step` allows no further pause, and wait for the next turn."""
        self._pauses_left -= 1
        if not self.terminated and (self._pauses_left <= 0 or self.idle):
            self._paused.release()
            self._turn.acquire()
        if self.terminated:
            raise ProcessTerminated

    def terminate(self) -> None:
        """End the thread, by an exception in its `pause`."""
        self.terminated = True
        if self._thread.is_alive():
            self._turn.release()
            self._thread.join()

    def _run(self) -> None:
        _thread.process = self
        self._turn.acquire()
        try:
            if not self.terminated:
                self._main(self)
        except ProcessTerminated:
            pass
        except BaseException as error:  # noqa: BLE001 -- whatever it is, it is a fault of the simulated program
            if not self.terminated:
                self._add_fault(f"{self.name} has died of {error!r}")
        self.ended = True
        self._paused.release()


def current_process() -> SimulatedProcess | None:
    """Return the simulated process of this thread, or ``None``."""
    return getattr(_thread, "process", None)


class ManualHeartbeat:
    """A `LeaseKeeper` without a thread: `beat` extends the leases of the processes that can run."""

    def __init__(self, extend: Callable[[Collection[str]], object]) -> None:
        """`extend`: called with the names of the workers."""
        self._extend = extend
        self._counts: Counter[tuple[SimulatedProcess | None, str]] = Counter()

    def keep(self, worker: str) -> None:
        """Extend the leases of `worker` as long as this process can run. Counts: as many `drop` calls end it."""
        self._counts[current_process(), worker] += 1

    def drop(self, worker: str) -> None:
        """Undo one `keep`."""
        key = current_process(), worker
        self._counts[key] = max(self._counts[key] - 1, 0)

    def keeps(self, process: SimulatedProcess, worker: str) -> bool:
        """Return whether `process` keeps the leases of `worker`."""
        return self._counts[process, worker] > 0

    def beat(self) -> None:
        """Extend the leases."""
        kept = [key for key, count in self._counts.items() if count > 0]
        workers = [worker for process, worker in kept if process is None or process.can_run]
        self._extend(workers)

    def catch_up(self) -> None:
        """Do nothing: the driver of the world decides when to beat."""

    def close(self) -> None:
        """Do nothing: there is no thread to end."""
