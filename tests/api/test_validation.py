"""Durations, moments and numbers as users give them, and the clock."""

import itertools
import time
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support import strategies as some
from support.strategies import patient

from lifecycle import validation
from lifecycle.clock import SystemClock
from lifecycle.errors import ConfigurationError
from lifecycle.testing import strategies as drawn
from lifecycle.validation import (
    checked_priority,
    due_at,
    duration,
    number,
    positive_duration,
    seconds,
    timestamp,
    utc_seconds,
    whole_number,
)


def refusal(check, *args, **options):
    """Return the error text of a check; fail if the check does not raise."""
    with pytest.raises(ConfigurationError) as caught:
        check(*args, **options)
    return str(caught.value)


@patient
@given(st.datetimes(timezones=some.zones), drawn.all_times, st.floats(-1e9, 1e9))
@example(datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))), 0.0, 0.0)
@example(datetime.min, 0.0, 0.0)  # noqa: DTZ901 -- naive is the point
def test_due_at_takes_a_datetime_or_seconds_or_a_timedelta_from_now(moment, now, delay):
    """A moment is a datetime, as the standard library understands it, or seconds or a timedelta from now."""
    try:
        expected = moment.timestamp()
    except (ValueError, OverflowError):  # naive, and at the edge of what has a local time
        for check in (lambda: due_at(moment, now, "eta"), lambda: utc_seconds(moment, "eta")):
            assert refusal(check).startswith(f"eta={moment!r}: cannot be converted to UTC: ")
    else:
        assert due_at(moment, now, "eta") == timestamp(moment) == validation.moment(moment, "eta")
        assert utc_seconds(moment, "eta") == timestamp(moment)
        assert timestamp(moment) == pytest.approx(expected, abs=1e-6)
    assert (due_at(delay, now, "eta"), due_at(None, now, "eta")) == (now + delay, None)
    assert due_at(timedelta(seconds=delay), now, "eta") == now + timedelta(seconds=delay).total_seconds()
    assert utc_seconds(now, "eta") == now


@pytest.mark.parametrize("fold", [0, 1])
def test_naive_datetime_is_local_time(monkeypatch, fold):
    """A naive datetime is local time as `datetime.timestamp` has it, also in hours that the clocks skip or repeat."""
    monkeypatch.setenv("TZ", "EST5EDT,M3.2.0,M11.1.0")
    time.tzset()
    try:
        for day, minute in itertools.product([(2024, 3, 10, 1), (2024, 11, 3, 0)], range(0, 180, 15)):
            moment = datetime(*day) + timedelta(minutes=minute)  # noqa: DTZ001 -- naive is the point
            assert due_at(moment.replace(fold=fold), 0.0, "eta") == moment.replace(fold=fold).timestamp()
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("value", some.NO_NUMBERS, ids=lambda value: repr(value)[:9])
def test_values_that_are_no_moment_no_duration_and_no_number_are_refused(value):
    """A value that is no moment, no duration and no number is refused; the error shows option, value and rule."""
    for refused, rule in (
        (refusal(due_at, value, 1.0, "x"), "a datetime, or a timedelta or seconds from now"),
        (refusal(duration, value, "x"), "seconds or a timedelta, 0 or more"),
        (refusal(positive_duration, value, "x"), "seconds or a timedelta, 0 or more"),
        (refusal(validation.moment, value, "x"), "a datetime"),
        (refusal(utc_seconds, value, "x"), "a datetime or UTC seconds"),
        (refusal(number, value, "x"), "a number, 0 or more"),
    ):
        assert refused == f"x={value!r}: must be {rule}"


@patient
@given(st.integers(0, 10**9) | st.floats(0, 1e300), st.timedeltas(timedelta(0), timedelta.max / 2))
def test_duration_is_seconds_or_a_timedelta(value, delta):
    """A duration is seconds or a timedelta, 0 or more, and comes as seconds."""
    assert duration(value, "lease") == seconds(value) == value
    assert duration(delta, "lease") == seconds(delta) == delta.total_seconds()
    assert type(duration(value, "lease")) is float
    for negative in (-value - 1e-9, -delta - timedelta.resolution):
        assert refusal(duration, negative, "lease") == f"lease={negative!r}: must be seconds or a timedelta, 0 or more"
    for length in (value, delta):
        if length:
            assert positive_duration(length, "lease") == seconds(length)


@pytest.mark.parametrize("zero", [0, 0.0, timedelta(0)])
def test_positive_duration_refuses_zero(zero):
    """A duration of 0 is refused where a duration must be longer."""
    assert refusal(positive_duration, zero, "lease") == f"lease={zero!r}: must be greater than 0 seconds"


def test_timedelta_is_no_moment_and_no_number():
    """A timedelta is refused where a moment or a plain number is expected."""
    assert "must be a datetime or UTC seconds" in refusal(utc_seconds, timedelta(1), "eta")
    assert "must be a number" in refusal(number, timedelta(1), "retry_backoff")


@patient
@given(st.floats(allow_nan=False), st.integers(1, 9))
def test_number_is_between_zero_and_its_limit(value, limit):
    """A number is taken from 0 to the limit; any other one is refused with both ends."""
    if 0 <= value <= limit:
        assert number(value, "jitter", at_most=limit) == value
    else:
        assert (
            refusal(number, value, "jitter", at_most=limit) == f"jitter={value!r}: must be a number, from 0 to {limit}"
        )


@patient
@given(st.integers() | st.sampled_from([True, False, 1.0, "1", None]), st.integers(0, 5))
def test_whole_number_is_an_int_of_at_least_a_limit(value, least):
    """A whole number is an int, no bool, from the limit on."""
    if type(value) is int and value >= least:
        assert whole_number(value, "retries", at_least=least) == value
    else:
        refused = refusal(whole_number, value, "retries", "task 1", at_least=least)
        assert refused == f"task 1: retries={value!r}: must be a whole number, {least} or more"


@patient
@given(st.integers() | st.sampled_from([2**31 - 1, 2**31, -(2**31), -(2**31) - 1, True, 1.0, None]))
def test_priority_is_an_int_of_32_bits(value):
    """A priority is an int of 32 bits, no bool."""
    if type(value) is int and -(2**31) <= value < 2**31:
        assert checked_priority(value) == value
    else:
        expected = f"task 1: priority={value!r}: must be a whole number from -2147483648 to 2147483647"
        assert refusal(checked_priority, value, "task 1") == expected


def test_system_clock_is_the_clock_of_the_host():
    """The system's clock is the host's, in UTC seconds; to listen for its steps is no error."""
    before, now, after = time.time(), SystemClock().now(), time.time()
    assert before <= now <= after
    assert SystemClock().on_step(print) is None
