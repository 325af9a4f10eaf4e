"""The scenarios of the lifecycle: each with its steps, its promised signals, and the proof of its promise.

A scenario is a function that makes it happen with the public API, in a `DemoEnvironment` or in a replay.
"""

import signal
from collections.abc import Callable
from typing import Final

import attrs

from lifecycle.consumer.demo.environment import SIGNAL_TIMEOUT_SECONDS, DemoEnvironment
from lifecycle.core.table import EXECUTING, LIFECYCLE, Kind
from lifecycle.errors import TaskException
from lifecycle.execution.signals import (
    SIGNAL_CANCELED,
    SIGNAL_COMPLETE,
    SIGNAL_ENQUEUED,
    SIGNAL_ERROR,
    SIGNAL_EXECUTING,
    SIGNAL_EXPIRED,
    SIGNAL_INTERRUPTED,
    SIGNAL_LOCKED,
    SIGNAL_RETRYING,
    SIGNAL_REVOKED,
    SIGNAL_SCHEDULED,
    SIGNAL_TIMEOUT,
)
from lifecycle.result import Result

__all__ = ["SCENARIOS", "Scenario"]

Run = Callable[[DemoEnvironment], Result[object]]
Proof = Callable[[DemoEnvironment, Result[object]], str]


@attrs.frozen
class Scenario:
    """A scenario of the lifecycle: the signals that it must send, and the proof that the promise was kept."""

    title: str
    promised: tuple[str, ...]
    """The consumers' signals, in order; the producer's `enqueued` is left out."""
    run: Run
    """Makes the scenario happen; returns the result of its task."""
    name: str = ""
    """Two or three words, for the table of all scenarios."""
    promise: str = ""
    """One sentence."""
    code: str = ""
    """The call, and the decorator of its function; ``{delay}`` and ``{lease}`` are seconds."""
    proof: Proof = lambda environment, result: ""  # noqa: ARG005
    """Checks the stored facts, adds a fault if they are others, and returns them in words."""


# What happens --------------------------------------------------------------------------------------------------------


def _add(environment: DemoEnvironment) -> Result[object]:
    return environment.tasks.add(1, 2)  # type: ignore[no-any-return]


def _scheduled(environment: DemoEnvironment) -> Result[object]:
    return environment.tasks.add.schedule((2, 3), delay=environment.delay)  # type: ignore[no-any-return]


def _retried_after_delay(environment: DemoEnvironment) -> Result[object]:
    result: Result[object] = environment.tasks.flaky_task()
    if environment.wait_for(result.id, len(_FAILS)):
        try:
            result.get()
        except TaskException:
            result.reset()
            value = result.get(blocking=True, timeout=SIGNAL_TIMEOUT_SECONDS + environment.delay)
            environment.expect(value == "OK", "the second attempt returns OK")
        else:
            over = LIFECYCLE.state(result.state).kind is Kind.FINAL  # a busy machine: the retry has run already
            environment.expect(over, "reading the result raises after the first failure")
    return result


def _revoked(environment: DemoEnvironment) -> Result[object]:
    environment.tasks.add.revoke()
    result: Result[object] = environment.tasks.add(1, 2)
    environment.wait_for(result.id, 1)
    environment.tasks.add.restore()
    return result


def _revoked_later(environment: DemoEnvironment) -> Result[object]:
    result: Result[object] = environment.tasks.add.schedule((2, 3), delay=3600)
    environment.wait_for(result.id, 1)
    result.revoke()
    return result


def _locked(environment: DemoEnvironment) -> Result[object]:
    with environment.queue.lock_task("demo-lock"):
        result: Result[object] = environment.tasks.locked_task()
        environment.wait_for(result.id, 2)
    return result


def _expired(environment: DemoEnvironment) -> Result[object]:
    return environment.tasks.add.schedule((1, 2), expires=0)  # type: ignore[no-any-return]


def _consumer_killed(environment: DemoEnvironment) -> Result[object]:
    result: Result[object] = environment.tasks.slow_task(60.0)
    environment.wait_for(result.id, 1)
    environment.stop_consumers(signal.SIGKILL)
    environment.start_consumer()
    return result


def _consumer_terminated(environment: DemoEnvironment) -> Result[object]:
    result: Result[object] = environment.tasks.slow_task(60.0)
    environment.wait_for(result.id, 1)
    environment.stop_consumers(signal.SIGTERM)
    environment.start_consumer()
    return result


def _consumer_frozen(environment: DemoEnvironment) -> Result[object]:
    result: Result[object] = environment.tasks.slow_task(environment.lease)
    environment.wait_for(result.id, 1)
    frozen = environment.consumers[-1]
    environment.send_signal(frozen, signal.SIGSTOP)
    environment.start_consumer()
    environment.wait_for(result.id, 5, SIGNAL_TIMEOUT_SECONDS + environment.lease)
    environment.send_signal(frozen, signal.SIGCONT)  # its task finishes now, and the outcome is refused
    return result


def _call(name: str) -> Run:
    return lambda environment: getattr(environment.tasks, name)()


# What proves it ------------------------------------------------------------------------------------------------------


def _times(result: Result[object]) -> dict[str, float]:
    """Return the time of the last entry into each state (UTC seconds)."""
    return {record.state: record.at for record in result.history()}


def _reads(value: object, call: str) -> Proof:
    """Return the proof that the result can be read, and read again."""

    def prove(environment: DemoEnvironment, result: Result[object]) -> str:
        first, second = result.get(), environment.queue.handle(result.id).get()
        environment.expect(first == second == value, f"{call} is {value!r}")
        return f"result {first!r}, read twice"

    return prove


def _starts_in_time(environment: DemoEnvironment, result: Result[object]) -> str:
    seconds = _times(result)[EXECUTING] - environment.began_at
    environment.expect(seconds >= environment.delay, f"the task waits for {environment.delay:g} s")
    return f"began {seconds:.2f} s after the call"


def _returns_at_second_attempt(environment: DemoEnvironment, result: Result[object]) -> str:
    attempts = [record.attempt for record in result.history() if record.state == EXECUTING]
    environment.expect(attempts == [1, 2], "there are two attempts")
    return f"attempt {attempts[-1]} returned {result.get()!r}"


def _never_starts(environment: DemoEnvironment, result: Result[object]) -> str:
    count = sum(record.state == EXECUTING for record in result.history())
    environment.expect(count == 0, "the function was not called")
    return f"{result.state}, {count} attempts"


def _raises(error_type: str) -> Proof:
    """Return the proof that the attempt has ended with an error of this type."""

    def prove(environment: DemoEnvironment, result: Result[object]) -> str:
        try:
            value = result.get()
        except TaskException as error:
            environment.expect(error.error_type.rpartition(".")[2] == error_type, f"the error is {error_type}")
            return f"{error.state}: {error_type}"
        environment.expect(False, f"the error is {error_type}, and no result is stored")
        return f"the result is {value!r}"

    return prove


def _interrupted_in_time(environment: DemoEnvironment, result: Result[object]) -> str:
    times = _times(result)
    seconds = times.get(result.state, times[EXECUTING]) - times[EXECUTING]
    _raises("TaskTimeout")(environment, result)
    return f"interrupted after {seconds:.2f} s"


def _done_elsewhere(environment: DemoEnvironment, result: Result[object]) -> str:
    value, (first, second) = result.get(), _runs_by_consumer(environment, result)
    environment.expect(value == "from attempt 2", "the result is that of attempt 2")
    environment.expect(first != second, "another consumer runs attempt 2")
    return f"{value!r}, by consumer {second}"


def _refused(environment: DemoEnvironment, result: Result[object]) -> str:
    _done_elsewhere(environment, result)
    environment.expect(environment.wait_for_refusal(result.id), "the outcome of attempt 1 is refused")
    value = environment.queue.handle(result.id).get()
    environment.expect(value == "from attempt 2", "the result is still that of attempt 2")
    return f"late outcome refused, {value!r} kept"


def _runs_by_consumer(environment: DemoEnvironment, result: Result[object]) -> tuple[int, int]:
    """Return the pids of the consumers of the first and the last attempt."""
    pids = [event.consumer for event in environment.events(result.id) if event.signal == SIGNAL_EXECUTING]
    return pids[0], pids[-1]


# All of them ---------------------------------------------------------------------------------------------------------

_RUNS: Final = (SIGNAL_EXECUTING, SIGNAL_COMPLETE)
_FAILS: Final = (SIGNAL_EXECUTING, SIGNAL_ERROR, SIGNAL_RETRYING)
_REQUEUED: Final = (SIGNAL_EXECUTING, SIGNAL_INTERRUPTED, SIGNAL_ENQUEUED)

SCENARIOS: Final = (
    Scenario(
        "add(1, 2)", _RUNS, _add, "call",
        "A result can be read, and read again.",
        "add(1, 2)  # @queue.task()",
        _reads(3, "add(1, 2)"),
    ),
    Scenario(
        "add.schedule((2, 3), delay=…)", (SIGNAL_SCHEDULED, *_RUNS), _scheduled, "delay",
        "A task does not start before its time.",
        "add.schedule((2, 3), delay={delay})  # @queue.task()",
        _starts_in_time,
    ),
    Scenario(
        "fails once, is retried after a delay", (*_FAILS, SIGNAL_SCHEDULED, *_RUNS), _retried_after_delay,
        "retry later",
        "A failed task is tried again after its delay.",
        "flaky_task()  # @queue.task(retries=2, retry_delay={delay})",
        _returns_at_second_attempt,
    ),
    Scenario(
        "fails once, is retried at once", (*_FAILS, SIGNAL_ENQUEUED, *_RUNS), _call("retried_at_once"),
        "retry at once",
        "Without a delay it is tried again at once.",
        "retried_at_once()  # @queue.task(retries=1)",
        _returns_at_second_attempt,
    ),
    Scenario(
        "raises RetryTask", (SIGNAL_EXECUTING, SIGNAL_RETRYING, SIGNAL_ENQUEUED, *_RUNS), _call("raises_retry"),
        "RetryTask",
        "A function can ask for another attempt.",
        "raises_retry()  # @queue.task(): raises RetryTask",
        _returns_at_second_attempt,
    ),
    Scenario(
        "add.revoke(), then add(1, 2)", (SIGNAL_REVOKED,), _revoked, "revocation",
        "A revoked function is not called.",
        "add.revoke(); add(1, 2)  # @queue.task()",
        _never_starts,
    ),
    Scenario(
        "revoked while it waits for its ETA", (SIGNAL_SCHEDULED, SIGNAL_REVOKED), _revoked_later,
        "revoked later",
        "A task that waits can be revoked.",
        "add.schedule((2, 3), delay=3600).revoke()  # @queue.task()",
        _never_starts,
    ),
    Scenario(
        "a pre-execute hook raises CancelExecution", (SIGNAL_EXECUTING, SIGNAL_CANCELED), _call("canceled_task"),
        "hook",
        "A hook can refuse an attempt.",
        "canceled_task()  # @queue.pre_execute(): raises CancelExecution",
        _raises("CancelExecution"),
    ),
    Scenario(
        "the lock is taken", (SIGNAL_EXECUTING, SIGNAL_LOCKED), _locked, "lock",
        "Tasks with one lock run one at a time.",
        'locked_task()  # @queue.lock_task("demo-lock")',
        _raises("TaskLockedException"),
    ),
    Scenario(
        "runs longer than its timeout", (SIGNAL_EXECUTING, SIGNAL_TIMEOUT), _call("endless_task"), "timed out",
        "A function that runs too long is interrupted.",
        "endless_task()  # @queue.task(timeout=0.2)",
        _interrupted_in_time,
    ),
    Scenario(
        "past its expiry", (SIGNAL_EXPIRED,), _expired, "expiry",
        "A task past its expiry does not start.",
        "add.schedule((1, 2), expires=0)  # @queue.task()",
        _never_starts,
    ),
    Scenario(
        "its consumer is killed (kill -9)", (*_REQUEUED, *_RUNS), _consumer_killed, "kill -9",
        "A killed consumer loses no task.",
        "slow_task(60)  # @queue.task(): runs for 60 s, no retries",
        _done_elsewhere,
    ),
    Scenario(
        "its consumer is stopped (SIGTERM)", (*_REQUEUED, *_RUNS), _consumer_terminated, "SIGTERM",
        "A stopped consumer requeues its tasks.",
        "slow_task(60)  # @queue.task(): runs for 60 s, no retries",
        _done_elsewhere,
    ),
    Scenario(
        "its consumer freezes past the lease, and wakes up", (*_REQUEUED, *_RUNS), _consumer_frozen, "freeze",
        "A worker that lost a task cannot finish it.",
        "slow_task({lease})  # @queue.task(): runs for {lease} s",
        _refused,
    ),
)  # fmt: skip
