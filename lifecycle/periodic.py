"""The part of `TaskQueue` that concerns periodic tasks: the decorators, the ticks, and the calls of operators."""

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import ParamSpec, Protocol, TypeVar, cast, overload

import attrs

from lifecycle.core.schedules import (
    LATE_SECONDS,
    CallableSchedule,
    CronSchedule,
    Crontab,
    Misfire,
    Schedule,
    interval,
    time_zone,
)
from lifecycle.decorators import Decorators
from lifecycle.errors import ConfigurationError, UnknownTask
from lifecycle.execution.callables import check_call, check_callable
from lifecycle.execution.ticks import PeriodicTask, Ticker
from lifecycle.function import TaskFunction
from lifecycle.hints import refuses_unknown_options
from lifecycle.result import Result
from lifecycle.validation import refusal, text, utc_seconds

__all__ = ["PeriodicStatus", "PeriodicTasks"]

P = ParamSpec("P")
R = TypeVar("R")

log = logging.getLogger("lifecycle.consumer")


class _PeriodicDecorator(Protocol):
    """Turns a function that can be called without arguments, plain or `async`, into a periodic `TaskFunction`."""

    @overload
    def __call__(self, function: Callable[P, Awaitable[R]], /) -> TaskFunction[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> TaskFunction[P, R]: ...


@attrs.frozen
class PeriodicStatus:
    """A periodic task, as this program declares it, and as the store knows it."""

    name: str
    schedule: str | None
    """The rule; ``None``: this program does not declare the task."""
    misfire: str | None
    next_at: float | None
    """The next tick (UTC seconds); in the past if no consumer has made it. ``None``: paused, or none is known."""
    ticked: float | None
    """The moment up to which ticks have been made; ``None``: no consumer has seen the task yet."""
    paused: bool
    last_task: str | None
    """Id of the task of the latest tick."""


class PeriodicTasks(Decorators):
    """Base class of `TaskQueue`: periodic tasks."""

    _ticker: Ticker

    @refuses_unknown_options
    def periodic_task(
        self,
        validate_datetime: Crontab | Callable[[datetime], object],
        retries: int = 0,
        retry_delay: float | timedelta = 0,
        retry_backoff: float = 0,
        priority: int | None = None,
        expires: datetime | timedelta | float | None = None,
        timeout: float | timedelta | None = None,
        context: bool = False,
        name: str | None = None,
        *,
        tz: object = "UTC",
        misfire: str = Misfire.SKIP,
        retry_max_delay: float | timedelta = 86_400.0,
        retry_jitter: float = 0.0,
        max_interruptions: int | None = None,
    ) -> _PeriodicDecorator:
        """Return a decorator that makes a function a periodic task, with Huey's form of rules.

        The consumers enqueue a task in each minute of the rule; see `periodic` for the other options. A call of the
        function enqueues a task at once, as for any other function.

        Raises `ConfigurationError`: here for an invalid option, and at the function as `task` does, and if the function
        needs arguments.

        :param validate_datetime: a rule made by `crontab`, or a function that is called with each minute, as an aware
            datetime, and returns whether the task is to run then.
        """
        zone = time_zone(tz)
        schedule: Schedule
        if isinstance(validate_datetime, Crontab):
            schedule = attrs.evolve(validate_datetime, zone=zone)
        elif callable(validate_datetime) and not isinstance(validate_datetime, TaskFunction):
            check_callable(validate_datetime, "rule")
            check_call(validate_datetime, "rule", "moment")
            schedule = CallableSchedule(validate_datetime, zone)
        else:
            rule = "must be a rule, as in periodic_task(crontab(minute='*/5')); periodic() takes a cron expression"
            raise refusal(validate_datetime, "validate_datetime", None, rule)
        decorate = self.task(
            retries, retry_delay, retry_backoff, priority, expires, timeout, context, name,
            retry_max_delay=retry_max_delay, retry_jitter=retry_jitter, max_interruptions=max_interruptions,
        )  # fmt: skip
        return self._declared(decorate, schedule, misfire)

    @refuses_unknown_options
    def periodic(
        self,
        cron: str | None = None,
        *,
        every: float | timedelta | None = None,
        tz: object = "UTC",
        misfire: str = Misfire.SKIP,
        retries: int = 0,
        retry_delay: float | timedelta = 0,
        retry_backoff: float = 0,
        priority: int | None = None,
        expires: datetime | timedelta | float | None = None,
        timeout: float | timedelta | None = None,
        context: bool = False,
        name: str | None = None,
        retry_max_delay: float | timedelta = 86_400.0,
        retry_jitter: float = 0.0,
        max_interruptions: int | None = None,
    ) -> _PeriodicDecorator:
        """Return a decorator that makes a function a periodic task: consumers enqueue a task at each tick.

        Each tick is made once, however many consumers run. A tick is missed if no consumer makes it within a minute,
        because none runs. A call of the function enqueues a task at once, as for any other function; the other options
        are those of `task`.

        Raises `ConfigurationError`: here for an invalid option or a rule without ticks, and at the function as `task`
        does, and if the function needs arguments.

        :param cron: a cron expression of five fields, or of six with the seconds first. Where clocks are set forward or
            back, a task for a certain time runs once, as with Debian's cron.
        :param every: an interval, 1 second or more, instead of `cron`: ticks are at its multiples since 1970 (UTC).
        :param tz: the time zone of the expression: a name, such as Europe/Berlin, or a `tzinfo`.
        :param misfire: the treatment of missed ticks: ``"skip"``: they are left out; ``"run_once"``: one task is
            enqueued for all of them; ``"run_all"``: a task for each.
        """
        if (cron is None) == (every is None):
            raise ConfigurationError("periodic: give a cron expression, as in '0 3 * * *', or every=, one of both")
        zone = time_zone(tz)
        schedule = interval(every) if cron is None else CronSchedule(text(cron, "cron"), zone)
        decorate = self.task(
            retries, retry_delay, retry_backoff, priority, expires, timeout, context, name,
            retry_max_delay=retry_max_delay, retry_jitter=retry_jitter, max_interruptions=max_interruptions,
        )  # fmt: skip
        return self._declared(decorate, schedule, misfire)

    def _declared(
        self, decorate: Callable[..., TaskFunction[..., object]], schedule: Schedule, misfire: object
    ) -> _PeriodicDecorator:
        """Return a decorator that declares the task function, as `decorate` makes it, as a periodic task."""
        if misfire not in list(Misfire):
            raise refusal(misfire, "misfire", None, f"must be one of {', '.join(map(repr, map(str, Misfire)))}")
        checked = Misfire(cast(str, misfire))

        def declare(function: Callable[..., object]) -> TaskFunction[..., object]:
            made = decorate(function)
            try:
                self._engine.functions[made.name].signature.bind()
            except TypeError as error:
                self._engine.functions.pop(made.name)
                raise ConfigurationError(
                    f"{made.name}(): {error}: a periodic task is called without arguments; give its parameters defaults"
                ) from None
            self._ticker.tasks[made.name] = PeriodicTask(made.name, schedule, checked, made.s)
            return made

        return cast(_PeriodicDecorator, declare)

    def unregister(self, task: TaskFunction[..., object] | str) -> bool:
        """Forget a function, given as itself or its name, in this program; return False if it is not known.

        No ticks of it are made here any more. Its tasks wait for a consumer that knows the function.
        """
        name = task.name if isinstance(task, TaskFunction) else text(task, "task")
        self._ticker.tasks.pop(name, None)
        self._engine.interruption_limits.pop(name, None)
        return self._engine.functions.pop(name, None) is not None

    # Ticks -----------------------------------------------------------------------------------------------------------

    def enqueue_periodic(self, now: datetime | float | None = None) -> list[Result[object]]:
        """Enqueue the tasks of all ticks that are due, as a consumer does by itself; return their handles.

        For programs and tests that run tasks with `run_next`. The first call notes each periodic task, and makes no
        tick of the past. Raises `StorageError`.

        :param now: use this time (a datetime or UTC seconds) instead of the clock's.
        """
        moment = self._engine.clock.now() if now is None else utc_seconds(now, "now")
        return [Result(self._engine, task.id) for task in self._ticker.make_ticks(moment)]

    def run_periodic(self, name: str) -> Result[object]:
        """Enqueue the task of a periodic task of this name now, beside its ticks; return the task's handle.

        Raises `UnknownTask` if this program does not declare a periodic task of this name.
        """
        task = self._ticker.tasks.get(text(name, "name"))
        if task is None:
            raise UnknownTask(f"no periodic task is declared as {name!r} here: name the module that declares the task")
        new = task.make()
        self._engine.enqueue((new,), checked=True)
        return Result(self._engine, new.id)

    def next_tick_at(self) -> float:
        """Return the moment (UTC seconds) of the next tick that this program knows of; infinite: there is none."""
        return self._ticker.next_look_at()

    def pause_periodic(self, task: TaskFunction[..., object] | str) -> bool:
        """Make no ticks of a periodic task, given as its function or its name, until `resume_periodic`.

        Returns False if it is paused already. Tasks that are enqueued already stay. Raises `ConfigurationError` for a
        name that neither this program nor the store knows.
        """
        return self._pause(task, paused=True)

    def resume_periodic(self, task: TaskFunction[..., object] | str) -> bool:
        """Make ticks again, from now on: those during the pause are not made. Returns False if it is not paused."""
        return self._pause(task, paused=False)

    def _pause(self, task: TaskFunction[..., object] | str, *, paused: bool) -> bool:
        name = task.name if isinstance(task, TaskFunction) else text(task, "task")
        known = {status.name for status in self.periodic_tasks()}
        if name not in known:
            raise ConfigurationError(
                f"task={name!r}: no periodic task; there are: {', '.join(sorted(known)) or 'none'}"
            )
        return self._engine.storage.pause_periodic(name, paused=paused, now=self._engine.clock.now())

    def periodic_tasks(self) -> list[PeriodicStatus]:
        """Return all periodic tasks, by name: those that this program declares, and those that the store knows."""
        declared, now = self._ticker.tasks, self._engine.clock.now()
        states = {state.name: state for state in self._engine.storage.periodic_states()}
        found = []
        for name in sorted({*declared, *states}):
            task, state = declared.get(name), states.get(name)
            paused = state is not None and state.paused
            begin = now if state is None else state.ticked
            if task is not None and task.misfire is not Misfire.RUN_ALL:
                begin = max(begin, now - LATE_SECONDS)  # ticks before are not made any more
            found.append(
                PeriodicStatus(
                    name,
                    schedule=None if task is None else str(task.schedule),
                    misfire=None if task is None else str(task.misfire),
                    next_at=None if task is None or paused else _next_at(task, begin),
                    ticked=None if state is None else state.ticked,
                    paused=paused,
                    last_task=None if state is None else state.task,
                )
            )
        return found


def _next_at(task: PeriodicTask, begin: float) -> float | None:
    """Return the first tick after a moment; ``None``, with a log line, if the user's rule raises."""
    try:
        return task.schedule.after(begin)
    except Exception as error:  # noqa: BLE001 -- of a user's function
        log.error("the schedule of a periodic task raised: task=%s error=%r", task.name, error)  # noqa: TRY400 -- one line
        return None
