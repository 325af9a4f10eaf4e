"""Schedules of periodic tasks: their ticks, and which ticks are made."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import huey
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from lifecycle import ConfigurationError, crontab
from lifecycle.core.schedules import (
    AHEAD_SECONDS,
    LATE_SECONDS,
    TICKS_LIMIT,
    CallableSchedule,
    CronSchedule,
    IntervalSchedule,
    Misfire,
    due_ticks,
    interval,
    time_zone,
)

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = (UTC, BERLIN, ZoneInfo("America/New_York"), ZoneInfo("Australia/Lord_Howe"))
EXPRESSIONS = ("*/5 * * * *", "30 2 * * *", "0 3 * * 1-5", "15 4 1 * *", "*/20 * * * * *", "0 0 29 2 *")
BEGIN = 1_700_000_000.0
moments = st.floats(BEGIN, BEGIN + 3e8)
schedules = st.one_of(
    st.builds(CronSchedule, st.sampled_from(EXPRESSIONS), st.sampled_from(ZONES)),
    st.builds(IntervalSchedule, st.floats(1.0, 1e6)),
    st.just(crontab(minute="*/7", hour="22-4", day_of_week="1-5")),
    st.just(CallableSchedule(lambda moment: moment.minute % 10 == 3)),
)


def utc(text, zone=UTC):
    """Return UTC seconds of a local time."""
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


def local(schedule, begin, count, zone):
    """Return the next ticks as local times, each with its offset from UTC."""
    ticks, moment = [], begin
    for _ in range(count):
        moment = schedule.after(moment)
        ticks.append(f"{datetime.fromtimestamp(moment, zone):%m-%d %H:%M %z}")
    return ticks


@given(schedules, moments)
@example(IntervalSchedule(1.1), 1_700_000_003.9)
def test_after_and_before_agree(schedule, moment):
    """The first tick after a moment is the last tick at that tick, and no tick is between the moment and the tick."""
    tick = schedule.after(moment)
    assert moment < tick == schedule.before(tick)
    before = schedule.before(tick - 0.001)
    assert before is None or before <= moment
    assert schedule.after(tick) > tick


SPRING = [  # 2026-03-29: 02:00 becomes 03:00
    ("30 2 * * *", ["03-28 02:30 +0100", "03-29 03:00 +0200", "03-30 02:30 +0200"]),
    ("0 3 * * *", ["03-28 03:00 +0100", "03-29 03:00 +0200", "03-30 03:00 +0200"]),
    ("30 * * * *", ["03-28 02:30 +0100", "03-28 03:30 +0100"]),
]
AUTUMN = [  # 2026-10-25: 03:00 becomes 02:00
    ("30 2 * * *", ["10-24 02:30 +0200", "10-25 02:30 +0200", "10-26 02:30 +0100"]),
    ("0 3 * * *", ["10-24 03:00 +0200", "10-25 03:00 +0100", "10-26 03:00 +0100"]),
]


@pytest.mark.parametrize(("expression", "ticks"), SPRING)
def test_task_runs_once_where_clocks_are_set_forward(expression, ticks):
    """Where clocks are set forward, a task of the hour that is left out runs once, at the end of that hour."""
    begin = utc("2026-03-28T02:00", BERLIN)
    assert local(CronSchedule(expression, BERLIN), begin, len(ticks), BERLIN) == ticks


@pytest.mark.parametrize(("expression", "ticks"), AUTUMN)
def test_task_runs_once_where_clocks_are_set_back(expression, ticks):
    """Where clocks are set back, a task of the hour that comes twice runs once."""
    begin = utc("2026-10-24T02:00", BERLIN)
    assert local(CronSchedule(expression, BERLIN), begin, len(ticks), BERLIN) == ticks


def test_task_of_each_minute_runs_through_both_changes():
    """A task of every quarter of an hour runs every quarter of an hour, whatever the clocks do."""
    schedule = CronSchedule("*/15 * * * *", BERLIN)
    for day in "2026-03-29", "2026-10-25":
        moment = utc(f"{day}T00:00", BERLIN)
        for _ in range(20):
            tick = schedule.after(moment)
            assert tick - moment == 900
            moment = tick


def test_field_of_seconds_comes_first():
    """A cron expression of six fields has the seconds first."""
    assert CronSchedule("10 0 12 * * *").after(utc("2026-01-01T00:00")) == utc("2026-01-01T12:00:10")


def test_interval_counts_from_1970():
    """The ticks of an interval are at its multiples, on every host."""
    assert interval(timedelta(minutes=5)).after(BEGIN) % 300 == 0
    assert interval(7.5).before(BEGIN) % 7.5 == 0


# Huey's crontab ----------------------------------------------------------------------------------------------------

numbers = st.integers(0, 70).map(str)
pieces = st.one_of(
    st.just("*"),
    numbers,
    st.tuples(numbers, numbers).map("-".join),
    st.tuples(numbers, numbers, st.integers(1, 9).map(str)).map(lambda one: f"{one[0]}-{one[1]}/{one[2]}"),
    st.integers(1, 30).map("*/{}".format),
)
fields = st.lists(pieces, min_size=1, max_size=2).map(",".join)
NAMES = ("minute", "hour", "day", "month", "day_of_week")


@given(st.dictionaries(st.sampled_from(NAMES), fields, min_size=1, max_size=3), st.datetimes(timezones=st.just(UTC)))
@example({"day_of_week": "7"}, datetime(2026, 11, 29, tzinfo=UTC))
@example({"day_of_week": "6-1"}, datetime(2026, 11, 29, tzinfo=UTC))
@example({"day_of_week": "7-3/2"}, datetime(2026, 11, 29, tzinfo=UTC))
@example({"day_of_week": "5-1/2"}, datetime(2026, 11, 29, tzinfo=UTC))
@example({"hour": "22-4", "minute": "*/15"}, datetime(2026, 11, 29, 3, 45, tzinfo=UTC))
def test_crontab_has_hueys_minutes(given_fields, moment):
    """For any fields that Huey takes, a minute is a tick if Huey says so."""
    assume("*/" not in given_fields.get("day_of_week", ""))  # Huey takes no steps of all weekdays
    try:
        theirs = huey.crontab(**given_fields, strict=True)
    except ValueError:
        return
    try:
        ours = crontab(**given_fields)
    except ConfigurationError as error:
        assert "there is no such date" in str(error)
        return
    assert ours(moment) == theirs(moment)


@given(st.integers(0, 6), st.integers(1, 31), moments)
def test_crontab_needs_both_day_and_weekday(weekday, day, moment):
    """A tick has both the day and the weekday, in each direction of the search."""
    rule = crontab(minute=0, hour=0, day=day, day_of_week=weekday)
    tick = rule.after(moment)
    at = datetime.fromtimestamp(tick, UTC)
    assert (at.day, at.isoweekday() % 7, at.hour, at.minute) == (day, weekday, 0, 0)
    assert rule.before(tick) == tick
    assert rule(at)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"minute": "abc"}, "minute='abc'.*must be made of"),
        ({"minute": ""}, "minute=''"),
        ({"minute": "61"}, "numbers from 0 to 59"),
        ({"hour": "*/0"}, "hour="),
        ({"day": 0}, "numbers from 1 to 31"),
        ({"month": 1.5}, "month=1.5.*must be a str or a whole number"),
        ({"month": True}, "month=True"),
        ({"day": 30, "month": 2}, "day=30, month=2.*there is no such date"),
        ({"strict": "yes"}, "strict"),
    ],
)
def test_crontab_refuses_fields_that_cannot_be_right(arguments, reason):
    """A field that cannot be read, or a date that never comes, is refused where it is written."""
    with pytest.raises(ConfigurationError, match=reason):
        crontab(**arguments)


@pytest.mark.parametrize("expression", ["", "* * * *", "61 * * * *", "x * * * *", "0 0 30 2 *", "* * * * * * *"])
def test_cron_expression_without_a_tick_is_refused(expression):
    """A cron expression that cannot be read, or that never fits, is refused."""
    with pytest.raises(ConfigurationError, match="cron="):
        CronSchedule(expression)


@pytest.mark.parametrize("zone", ["Europe/Atlantis", "", "../etc/passwd", 3, None, "\0"])
def test_unknown_time_zone_is_refused(zone):
    """A time zone that is not known is refused."""
    with pytest.raises(ConfigurationError, match="tz="):
        time_zone(zone)


# Which ticks are made ------------------------------------------------------------------------------------------------


@given(schedules, st.lists(st.floats(-200, 4000), min_size=1, max_size=8), st.sampled_from(Misfire))
def test_ticks_are_made_once_and_in_order(schedule, steps, misfire):
    """Over any looks, also with a clock that is set back, no tick is made twice, and none before its moment."""
    now = ticked = BEGIN
    made = []
    for step in steps:
        now += step
        ticks, ticked = due_ticks(schedule, ticked, now, misfire)
        assert all(tick <= now for tick in ticks)
        made += ticks
    assert made == sorted(set(made))
    assert all(schedule.before(tick) == tick for tick in made)


@given(schedules, st.floats(0, 40_000), st.floats(0, 4000))
def test_misfire_decides_about_missed_ticks(schedule, silence, later):
    """Of the ticks during a silence, `run_all` makes all, `run_once` the latest, `skip` those of the last minute."""
    now = BEGIN + silence
    wanted, tick = [], schedule.after(BEGIN)
    while tick is not None and tick <= now and len(wanted) <= TICKS_LIMIT:
        wanted.append(tick)
        tick = schedule.after(tick)
    assume(len(wanted) <= TICKS_LIMIT)
    fresh = [tick for tick in wanted if tick > now - LATE_SECONDS]
    assert due_ticks(schedule, BEGIN, now, Misfire.RUN_ALL)[0] == wanted
    assert due_ticks(schedule, BEGIN, now, Misfire.SKIP)[0] == fresh
    assert due_ticks(schedule, BEGIN, now, Misfire.RUN_ONCE)[0] == (fresh or wanted[-1:])


def test_very_many_ticks_come_in_parts():
    """Of very many missed ticks a part is made at a time, and the next look goes on behind it."""
    schedule, now = IntervalSchedule(1.0), BEGIN + 2.5 * TICKS_LIMIT
    made, ticked = [], BEGIN
    for _ in range(3):
        ticks, ticked = due_ticks(schedule, ticked, now, Misfire.RUN_ALL)
        assert len(ticks) <= TICKS_LIMIT
        made += ticks
    assert made == [BEGIN + number for number in range(1, int(2.5 * TICKS_LIMIT) + 1)]
    assert ticked == now


def test_ticks_of_a_wrong_clock_are_forgotten():
    """A latest tick a little ahead of the clock stays; one far ahead was made by a wrong clock, and counts no more."""
    schedule = IntervalSchedule(10.0)
    assert due_ticks(schedule, BEGIN + AHEAD_SECONDS, BEGIN, Misfire.SKIP) == ([], BEGIN + AHEAD_SECONDS)
    assert due_ticks(schedule, BEGIN + AHEAD_SECONDS + 1, BEGIN, Misfire.SKIP) == ([], BEGIN)
