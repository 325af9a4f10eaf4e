"""Moments and durations as users give them, and the clock."""

import itertools
import time
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support import strategies as some
from support.strategies import patient

from lifecycle import moments
from lifecycle.clock import SystemClock, seconds, timestamp
from lifecycle.errors import ConfigurationError
from lifecycle.moments import due_at, duration
from lifecycle.testing import strategies as drawn


@patient
@given(st.datetimes(timezones=some.zones), drawn.moments, st.floats(-1e9, 1e9))
@example(datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))), 0.0, 0.0)
@example(datetime.min, 0.0, 0.0)  # noqa: DTZ901 -- naive is the point
def test_due_at(moment, now, delay):
    """A moment is a datetime, as the standard library understands it, or seconds or a timedelta from now."""
    try:
        expected = moment.timestamp()
    except (ValueError, OverflowError):  # naive, and at the edge of what has a local time
        with pytest.raises(ConfigurationError):
            due_at(moment, now)
    else:
        assert due_at(moment, now) == timestamp(moment) == moments.moment(moment, "eta")
        assert timestamp(moment) == pytest.approx(expected, abs=1e-6)
    assert (due_at(delay, now), due_at(None, now)) == (now + delay, None)
    assert due_at(timedelta(seconds=delay), now) == now + timedelta(seconds=delay).total_seconds()


@pytest.mark.parametrize("fold", [0, 1])
def test_local_time(monkeypatch, fold):
    """A naive datetime is local time as `datetime.timestamp` has it, also in hours that the clocks skip or repeat."""
    monkeypatch.setenv("TZ", "EST5EDT,M3.2.0,M11.1.0")
    time.tzset()
    try:
        for day, minute in itertools.product([(2024, 3, 10, 1), (2024, 11, 3, 0)], range(0, 180, 15)):
            moment = datetime(*day) + timedelta(minutes=minute)  # noqa: DTZ001 -- naive is the point
            assert due_at(moment.replace(fold=fold), 0.0) == moment.replace(fold=fold).timestamp()
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("value", some.NO_NUMBERS, ids=lambda value: repr(value)[:9])
def test_no_moment(value):
    """What is no moment, or no duration, is refused with an error that shows it."""
    for ask in (lambda: due_at(value, 1.0), lambda: duration(value, "timeout"), lambda: moments.moment(value, "eta")):
        with pytest.raises(ConfigurationError) as caught:
            ask()
        assert repr(value)[:40] in str(caught.value)


@patient
@given(st.integers(0, 10**9) | st.floats(0, 1e300), st.timedeltas(timedelta(0), timedelta.max / 2))
def test_duration(number, delta):
    """A duration is seconds or a timedelta, 0 or more, and comes as seconds."""
    assert duration(number, "lease") == seconds(number) == number
    assert duration(delta, "lease") == seconds(delta) == delta.total_seconds()
    assert type(duration(number, "lease")) is float
    for negative in (-number - 1e-9, -delta - timedelta.resolution):
        with pytest.raises(ConfigurationError, match="lease="):
            duration(negative, "lease")


def test_the_clock():
    """The system's clock is the host's, in UTC seconds; to listen for its steps is no error."""
    before, now, after = time.time(), SystemClock().now(), time.time()
    assert before <= now <= after
    assert SystemClock().on_step(print) is None
