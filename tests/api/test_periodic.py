"""Periodic tasks: declared, ticked, paused, missed, on each kind of store."""

from datetime import UTC, datetime, timedelta

import pytest
from conftest import NOW, failure, states

from lifecycle import SIGNAL_ENQUEUED, ConfigurationError, crontab
from lifecycle.core.schedules import LATE_SECONDS
from lifecycle.testing import drain

MINUTE = 60.0


@pytest.fixture
def clock(clock):
    """Virtual clock that begins a second after a full hour."""
    clock.advance(3601 - NOW % 3600)
    return clock


@pytest.fixture
def tick(queue, ran):
    """Periodic task of every five minutes, which the queue has seen."""

    @queue.periodic_task(crontab(minute="*/5"), name="tick")
    def tick():
        ran.append(queue.engine.clock.now())
        return "tock"

    queue.enqueue_periodic()
    return tick


def test_each_tick_enqueues_a_task(queue, clock, tick, ran):
    """A periodic task is enqueued at each of its ticks, and runs like any other task."""
    assert queue.enqueue_periodic() == []
    assert queue.next_tick_at() == clock.now() - 1 + 5 * MINUTE
    clock.advance(5 * MINUTE - 1)
    (result,) = queue.enqueue_periodic()
    assert queue.enqueue_periodic() == []
    drain(queue)
    assert result.get() == "tock"
    assert states(result) == "queued executing complete"
    clock.advance(5 * MINUTE)
    queue.enqueue_periodic()
    drain(queue)
    assert ran == [clock.now() - 5 * MINUTE, clock.now()]


def test_declaration_makes_no_tick_of_the_past(queue, clock, ran):
    """The first look at a periodic task notes the moment, and makes no tick, even with `run_all`."""
    queue.periodic("* * * * *", misfire="run_all")(lambda: ran.append(1))
    assert queue.enqueue_periodic() == []
    clock.advance(MINUTE)
    assert len(queue.enqueue_periodic()) == 1


def test_two_processes_make_each_tick_once(make, clock):
    """However many processes look, each tick is made once; one that looks late makes those that are left."""
    queues = [make(), make()] if make().storage.location != "memory://" else [make()]
    for queue in queues:
        queue.periodic(every=10, name="tick")(lambda: None)
        queue.enqueue_periodic()
    made = 0
    for step in range(12):
        clock.advance(5)
        made += sum(len(queue.enqueue_periodic()) for queue in queues[step % len(queues) :])
    assert made == 6
    assert queues[0].counts()["queued"] == 6


def test_stale_process_makes_no_tick_again(make, clock, monkeypatch):
    """A process that was frozen after it had read the latest tick is refused by the store."""
    queue = make()
    queue.periodic(every=10, name="tick")(lambda: None)
    queue.enqueue_periodic()
    clock.advance(10)
    stale = queue.storage.periodic_states()
    assert len(queue.enqueue_periodic()) == 1
    queue._ticker._looks.clear()
    monkeypatch.setattr(queue.storage, "periodic_states", lambda: stale)
    assert queue.enqueue_periodic() == []
    assert queue.counts()["queued"] == 1


@pytest.mark.parametrize(("misfire", "count"), [("skip", 0), ("run_once", 1), ("run_all", 12)])
def test_missed_ticks_are_treated_as_declared(queue, clock, misfire, count):
    """Of the ticks that nobody has made in an hour, none, the latest or all are made, as the task says."""
    queue.periodic("*/5 * * * *", misfire=misfire)(lambda: None)
    queue.enqueue_periodic()
    clock.advance(3600 + LATE_SECONDS + 1)
    assert len(queue.enqueue_periodic()) == count
    clock.advance(4 * MINUTE)
    assert len(queue.enqueue_periodic()) == 1


def test_clock_that_is_set_back_makes_no_tick_again(queue, clock, tick):
    """While the clock repeats a time, no tick of that time is made again."""
    clock.advance(5 * MINUTE)
    assert len(queue.enqueue_periodic()) == 1
    clock.advance(-3 * MINUTE)
    for _ in range(3):
        assert queue.enqueue_periodic() == []
        clock.advance(MINUTE)
    clock.advance(5 * MINUTE)
    assert len(queue.enqueue_periodic()) == 1


def test_clock_that_was_years_ahead_does_not_stop_the_ticks(queue, clock, tick, caplog):
    """After a clock that was far ahead has made a tick, ticks begin anew, with a warning."""
    clock.advance(10 * 365 * 86400.0)
    queue.enqueue_periodic()
    clock.advance(5 * MINUTE)
    assert len(queue.enqueue_periodic()) == 1
    clock.advance(-10 * 365 * 86400.0)
    assert queue.enqueue_periodic() == []
    assert "ticks begin anew" in caplog.text
    clock.advance(5 * MINUTE)
    assert len(queue.enqueue_periodic()) == 1


def test_paused_task_has_no_ticks(queue, clock, tick):
    """A paused periodic task makes no ticks; once resumed, it makes those from then on."""
    assert queue.pause_periodic(tick)
    assert not queue.pause_periodic("tick")
    clock.advance(20 * MINUTE)
    assert queue.enqueue_periodic() == []
    assert queue.periodic_tasks()[0].paused
    assert queue.resume_periodic("tick")
    assert not queue.resume_periodic(tick)
    assert queue.enqueue_periodic() == []
    clock.advance(5 * MINUTE)
    assert len(queue.enqueue_periodic()) == 1


def test_revoked_periodic_task_is_enqueued_and_revoked(queue, clock, tick, ran):
    """The ticks of a revoked function are enqueued and revoked, until the function is restored."""
    tick.revoke()
    clock.advance(5 * MINUTE)
    (result,) = queue.enqueue_periodic()
    drain(queue)
    assert (states(result), ran) == ("queued revoked", [])
    tick.restore()
    clock.advance(5 * MINUTE)
    queue.enqueue_periodic()
    drain(queue)
    assert len(ran) == 1


def test_call_by_hand_enqueues_a_task(queue, clock, tick, ran):
    """A call of a periodic task enqueues it at once, without a tick."""
    result = tick()
    drain(queue)
    assert (result.get(), ran) == ("tock", [clock.now()])


def test_options_of_a_task_hold_for_each_tick(queue, clock):
    """A periodic task has the options of a task: here it is retried, and ends in `error`."""

    @queue.periodic(every=timedelta(minutes=1), retries=1, name="fails")
    def fails():
        raise ValueError("no")

    queue.enqueue_periodic()
    clock.advance(MINUTE)
    (result,) = queue.enqueue_periodic()
    drain(queue)
    assert states(result) == "queued executing error retrying queued executing error"
    assert failure(result)["error"] == "ValueError('no')"


def test_handlers_hear_of_the_enqueueing(queue, clock, tick, heard):
    """The process that makes a tick sends the signal of the task's enqueueing, before any later one."""
    clock.advance(5 * MINUTE)
    (result,) = queue.enqueue_periodic()
    assert heard.of(result) == [SIGNAL_ENQUEUED]
    drain(queue)
    assert heard.story(result) == "enqueued executing complete"


def test_task_of_a_tick_starts_after_its_announcement(queue, clock, tick, ran):
    """No worker claims the task of a tick while the handlers of its enqueueing run."""
    claimed = []
    queue.signal(SIGNAL_ENQUEUED)(lambda signal, task: claimed.append(queue.run_next()))
    clock.advance(5 * MINUTE)
    queue.enqueue_periodic()
    assert (claimed, ran) == ([None], [])
    drain(queue)
    assert len(ran) == 1


def test_rule_has_a_time_zone(queue, clock):
    """The minutes of a rule are those of its time zone: without one, of UTC."""
    for zone in ("Europe/Berlin", "UTC"):
        queue.periodic_task(crontab(minute=0, hour=3), tz=zone, name=zone)(lambda: None)
    moments = [status.next_at for status in queue.periodic_tasks()]
    assert [datetime.fromtimestamp(at, UTC).hour for at in moments] == [1, 3]


def test_function_of_minutes_is_a_rule(queue, clock, ran, caplog):
    """A function that says of each minute whether the task runs is a rule; one that raises is logged, and asked again."""
    fault = []

    def rule(moment):
        if fault:
            raise fault.pop()
        return moment.minute in (7, 8)

    queue.periodic_task(rule, name="odd")(lambda: None)
    queue.enqueue_periodic()
    clock.advance(7 * MINUTE)
    assert len(queue.enqueue_periodic()) == 1
    fault.append(ZeroDivisionError("rule"))
    clock.advance(MINUTE)
    assert queue.enqueue_periodic() == []
    assert "task=odd" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    clock.advance(59)
    assert queue.enqueue_periodic() == []
    queue.flush()


def test_task_declared_anew_follows_the_new_rule(queue, clock, ran):
    """A periodic task that is declared at run time is seen at the next look; a new declaration takes its place."""

    def tick():
        pass

    queue.periodic(every=3600, name="tick")(tick)
    queue.enqueue_periodic()
    queue.periodic(every=60, name="tick")(tick)
    clock.advance(MINUTE)
    assert len(queue.enqueue_periodic()) == 1


def test_status_tells_rule_next_tick_and_latest_task(queue, clock, tick):
    """The status of a periodic task has its rule, the next tick, and the task of the latest tick."""
    queue.storage.pause_periodic("gone", paused=True, now=clock.now())
    gone, status = queue.periodic_tasks()
    assert (gone.name, gone.schedule, gone.next_at, gone.paused) == ("gone", None, None, True)
    assert (status.name, status.schedule, status.misfire) == (
        "tick",
        "*/5 * * * *",
        "skip",
    )
    assert (status.ticked, status.last_task) == (clock.now(), None)
    assert status.next_at == clock.now() - 1 + 5 * MINUTE
    clock.advance(5 * MINUTE + 7)
    assert queue.periodic_tasks()[1].next_at == clock.now() - 8
    (result,) = queue.enqueue_periodic()
    assert queue.periodic_tasks()[1].last_task == result.id


def test_moment_can_be_given(queue, clock, tick):
    """`enqueue_periodic` takes a moment instead of the clock's, as `run_next` does."""
    later = clock.now() + 5 * MINUTE
    assert len(queue.enqueue_periodic(datetime.fromtimestamp(later, UTC))) == 1
    with pytest.raises(ConfigurationError, match="now="):
        queue.enqueue_periodic("soon")


def test_immediate_queue_runs_ticks_in_the_caller(make, clock, ran):
    """In immediate mode the task of a tick runs in the process that makes the tick."""
    queue = make(immediate=True)
    queue.periodic(every=60)(lambda: ran.append(1))
    queue.enqueue_periodic()
    clock.advance(MINUTE)
    queue.enqueue_periodic()
    assert ran == [1]


async def awaited_rule(moment):
    """A rule that nobody awaits."""
    return True


def test_status_of_a_rule_that_raises_has_no_next_tick(queue, caplog):
    """Where a rule raises, the status of the task has no next tick, and the log has the error."""
    queue.periodic_task(lambda moment: moment.minute / 0, name="odd")(lambda: None)
    assert queue.periodic_tasks()[0].next_at is None
    assert "task=odd error=ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    ("declare", "reason"),
    [
        (lambda queue: queue.periodic(), "give a cron expression"),
        (lambda queue: queue.periodic("* * * * *", every=5), "one of both"),
        (lambda queue: queue.periodic("every day"), "cron='every day'.*five fields"),
        (lambda queue: queue.periodic(every=0.5), "every=0.5.*1 second or more"),
        (lambda queue: queue.periodic(every=-1), "every=-1"),
        (lambda queue: queue.periodic("* * * * *", tz="Mars/Olympus"), "tz='Mars/Olympus'"),
        (lambda queue: queue.periodic("* * * * *", misfire="later"), "misfire='later'.*'skip', 'run_once', 'run_all'"),
        (lambda queue: queue.periodic("* * * * *", retries=-1), "retries=-1"),
        (lambda queue: queue.periodic("* * * * *", contxt=True), "contxt"),
        (lambda queue: queue.periodic_task(awaited_rule), "rule.*async|async.*rule"),
        (lambda queue: queue.periodic_task(lambda: True), "rule"),
        (lambda queue: queue.periodic_task("*/5 * * * *"), "validate_datetime=.*crontab"),
        (lambda queue: queue.periodic_task(queue.task(name="t")(lambda: 1)), "validate_datetime="),
        (lambda queue: queue.periodic("* * * * *")(lambda needed: None), "called without arguments"),
        (lambda queue: queue.periodic("* * * * *")(3), "3"),
        (lambda queue: queue.pause_periodic("nothing"), "no periodic task; there are: none"),
    ],
)
def test_wrong_declarations_are_refused(queue, declare, reason, still_works):
    """What cannot be right is refused where it is written, and leaves no function and no periodic task behind."""
    with pytest.raises((ConfigurationError, TypeError), match=reason):
        declare(queue)
    assert queue.periodic_tasks() == []
    assert not set(queue.engine.functions) - {"before", "t"}
