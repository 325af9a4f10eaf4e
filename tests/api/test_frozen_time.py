"""A test of a user's program may freeze the time, as freezegun does: waits of this library end all the same."""

import sys
import time
from functools import partial

import pytest
from conftest import SOON

import lifecycle.clock
from lifecycle import ResultTimeout

CLOCKS = ("time", "monotonic", "perf_counter", "time_ns", "monotonic_ns", "perf_counter_ns")
NOT_FROZEN = ("threading", "queue", "selectors", "_pytest", "pytest", "support", "conftest", "hypothesis")
"""Beginnings of the modules that freezegun leaves alone, or that these tests need."""


@pytest.fixture
def frozen(monkeypatch):
    """Freeze the time: each clock of the module `time`, and each alias in another module, returns the same number."""
    real = {id(getattr(time, name)): getattr(time, name) for name in CLOCKS}
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith(NOT_FROZEN):
            continue
        for name, value in list(vars(module).items()) if hasattr(module, "__dict__") else ():
            if id(value) in real:
                monkeypatch.setattr(module, name, partial(type(value()), value()))


def test_wait_for_an_outcome_ends_while_the_time_is_frozen(frozen, queue, add):
    """`get(timeout=…)` ends after its time although the clocks of the module `time` stand still."""
    assert time.monotonic() == time.monotonic()
    result = add(1)
    with pytest.raises(ResultTimeout, match=f"no outcome after {SOON:g} s"):
        result.get(timeout=SOON)


def test_wait_counts_its_parts_where_no_clock_moves(queue, add, monkeypatch):
    """`get(timeout=…)` ends after as many waits as the timeout is long, even if the clock itself is frozen."""
    monkeypatch.setattr("lifecycle.result.monotonic", lambda: 5.0)
    waits = []
    monkeypatch.setattr(queue.storage, "wait", lambda channel, generation, timeout: waits.append(timeout))
    with pytest.raises(ResultTimeout):
        add(1).get(timeout=12)
    assert waits == [5.0, 5.0, 2.0]


def test_clock_of_the_library_is_no_alias():
    """The library's clock is no alias of a clock of the module `time`, which freezing would replace."""
    assert lifecycle.clock.monotonic is not time.monotonic
    assert abs(lifecycle.clock.monotonic() - time.monotonic()) < 60
