"""Ids, names, moments, durations, numbers and options as users give them, and the clock."""

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
from lifecycle.validation import (
    checked_priority,
    delay_seconds,
    due_at,
    duration,
    factor,
    flag,
    instance,
    is_plain_text,
    moment,
    number,
    positive_duration,
    seconds,
    text,
    time_limit,
    timestamp,
    utc_seconds,
    whole_number,
)

YEAR_1, YEAR_10000 = -62_135_596_800, 253_402_300_800
"""The first moments of these years, in UTC seconds."""


def shown(value):
    """Return a value as errors show it."""
    return repr(value) if len(repr(value)) <= 200 else f"{repr(value)[:200]}…"


def refusal(check, *args, **options):
    """Return the error text of a check; fail if the check does not raise."""
    with pytest.raises(ConfigurationError) as caught:
        check(*args, **options)
    return str(caught.value)


@patient
@given(st.datetimes(timezones=some.zones), st.floats(0, 1e11), st.floats(-1e9, 1e9))
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
        if not YEAR_1 <= expected < YEAR_10000:  # in UTC
            assert "must be a moment from the year 1 to the year 9999" in refusal(due_at, moment, now, "eta")
            return
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
        (refusal(time_limit, value, "x"), "seconds or a timedelta, 0 or more"),
        (refusal(delay_seconds, value, "x"), "seconds or a timedelta"),
        (refusal(positive_duration, value, "x"), "seconds or a timedelta, 0 or more"),
        (refusal(validation.moment, value, "x"), "a datetime"),
        (refusal(utc_seconds, value, "x"), "a datetime or UTC seconds"),
        (refusal(number, value, "x"), "a number, 0 or more"),
    ):
        assert refused == f"x={shown(value)}: must be {rule}"


@patient
@given(st.integers(0, 10**9) | st.floats(0, 1e11), st.timedeltas(timedelta(0), timedelta(seconds=1e11)))
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
    """A duration of 0 is refused where a duration must be longer; as a time limit it means none."""
    assert refusal(positive_duration, zero, "lease") == f"lease={zero!r}: must be greater than 0 seconds"
    assert time_limit(zero, "timeout") is time_limit(None, "timeout") is None
    assert time_limit(2, "timeout") == 2


@patient
@given(st.floats(-1e300, 1e11) | st.timedeltas(timedelta.min, timedelta(seconds=1e11)))
def test_delay_below_zero_is_no_delay(value):
    """A delay below 0 means at once, as a moment in the past does."""
    assert delay_seconds(value, "delay") == max(seconds(value), 0.0)


@pytest.mark.parametrize("check", [duration, positive_duration, time_limit, delay_seconds])
def test_duration_of_thousands_of_years_is_refused(check):
    """A duration of more than about 3,000 years is refused: it can only be a mistake of units."""
    for value in (1.1e11, timedelta.max, 10**20):
        assert refusal(check, value, "x") == f"x={value!r}: must be at most 1e+11 seconds"


@patient
@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**30), 10**30))
def test_moment_outside_the_years_1_to_9999_is_refused(value):
    """A moment must be in the years 1 to 9999, so that it can be shown; milliseconds given as seconds are not."""
    in_range = YEAR_1 <= value < YEAR_10000
    for check in (lambda: utc_seconds(value, "x"), lambda: due_at(value, 0.0, "x")):
        if in_range:
            assert check() == value
            assert datetime(1970, 1, 1) + timedelta(seconds=check())  # noqa: DTZ001 -- UTC
        else:
            assert refusal(check) == f"x={value!r}: must be a moment from the year 1 to the year 9999, in seconds"


@patient
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=500))
@example("\x7f\n" + "é" * 498)
def test_text_is_any_str_of_at_most_500_characters(value):
    """An id or name is any str of 1 to 500 characters that UTF-8 can write, without U+0000."""
    assert text(value, "id") is value
    assert is_plain_text(value) in (False, value.isascii())

    class Text(str):
        __slots__ = ()

        def __str__(self):
            return "another"

    assert (text(Text(value), "id"), type(text(Text(value), "id"))) == (value, str)
    assert not is_plain_text(Text(value))


NO_TEXTS = {
    "a str": [None, 42, b"raw", ["a"], True, object()],
    "not be empty": [""],
    "at most 500 characters": ["x" * 501, "é" * 501],
    "not contain U+0000 or a lone surrogate": ["a\0", "\ud800", "a\udfff"],
}


@pytest.mark.parametrize("rule", NO_TEXTS)
def test_text_that_no_store_can_keep_is_refused(rule):
    """An id or a name that is no str, empty, too long, or that UTF-8 cannot write is refused."""
    for value in NO_TEXTS[rule]:
        assert not is_plain_text(value)
        refused = refusal(text, value, "id", "add")
        assert refused.startswith("add: id=")
        assert rule in refused


class Unshowable:
    """Object whose repr raises."""

    def __repr__(self):
        raise RuntimeError("no repr")


@pytest.mark.parametrize("value", [10**5000, Unshowable(), "x" * 10**6, {"a": "\ud800"}], ids=lambda value: "a value")
def test_any_value_can_be_refused(value):
    """Any value can be shown in an error: a repr that raises is replaced, a long one is cut."""
    for check in (text, duration, number, moment, utc_seconds, flag):
        if isinstance(value, str) and check is text:
            continue
        refused = refusal(check, value, "x")
        assert len(refused) < 400
        refused.encode()


def test_factor_and_flag_are_checked():
    """A factor is 0, or 1 or more; a flag is a bool, and nothing else that is true."""
    assert [factor(value, "x") for value in (0, 1, 1.5, 10**6)] == [0.0, 1.0, 1.5, 1e6]
    for value in (0.5, 1e-9):
        assert (
            refusal(factor, value, "x") == f"x={value}: must be 1 or more, or 0 for equal delays: delays never shrink"
        )
    assert [flag(value, "x") for value in (True, False)] == [True, False]
    assert refusal(flag, 5, "x", hint="say so") == "x=5: must be True or False: say so"
    assert refusal(instance, 5, str, "x", "must be a str") == "x=5: must be a str"


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
@given(st.integers() | st.sampled_from([True, False, 1.0, "1", None, 2**31 - 1, 2**31]), st.integers(0, 5))
def test_whole_number_is_an_int_of_at_least_a_limit(value, least):
    """A whole number is an int, no bool, from the limit on."""
    if type(value) is int and least <= value < 2**31:
        assert whole_number(value, "retries", at_least=least) == value
    elif type(value) is int and value >= least:
        assert refusal(whole_number, value, "x", at_least=least) == f"x={value}: must be at most {2**31 - 1}"
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
