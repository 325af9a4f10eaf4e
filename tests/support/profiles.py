"""The two profiles of the suite: a sample by default, everything with ``LIFECYCLE_TEST_PROFILE=thorough``."""

import itertools
import os
from contextlib import contextmanager

import pytest
from hypothesis import seed, settings

DEFAULT_PERCENT = 25
"""How many of the thorough profile's examples the default profile tries: the one number to change."""
_NAMES = ("default", "thorough")


def _chosen():
    """Return the name of the profile that the environment names."""
    name = os.environ.get("LIFECYCLE_TEST_PROFILE") or "default"
    if name not in _NAMES:
        raise pytest.UsageError(f"LIFECYCLE_TEST_PROFILE={name}: must be one of {', '.join(_NAMES)}")
    return name


IS_THOROUGH = _chosen() == "thorough"

thorough = pytest.mark.thorough
"""Marks a test, or a case of one, that the default profile leaves out."""


def load():
    """Give Hypothesis the number of examples of the profile, and no deadline, for settings that are made from then on.

    The rest stays as Hypothesis has it: there is a profile for CI, and another one in `tests/mutants`.
    """
    _load("suite", max_examples=examples(settings.default.max_examples), deadline=None)


def _load(name, **options):
    settings.register_profile(name, settings.default, **options)
    settings.load_profile(name)


@contextmanager
def hypothesis_options(**options):
    """Change Hypothesis's default settings for a while."""
    before = settings.default
    _load("for a while", **options)
    try:
        yield
    finally:
        settings.register_profile("suite", before)
        settings.load_profile("suite")


def examples(count):
    """Return the profile's share of `count`, at least 1: of examples, rounds or seeds."""
    return count if IS_THOROUGH else max(1, count * DEFAULT_PERCENT // 100)


def repeat_until(run, seeded, is_enough, rounds=100):
    """Call `run` until what it has come to is enough, each time with other examples: `seeded` is what Hypothesis runs.

    Which round comes to the rarest is a matter of luck; that one of so many does is not.
    """
    for number in range(rounds):
        run()
        if is_enough():
            return
        seed(number)(seeded)  # else `--hypothesis-seed`, or its profile for CI, would have each round do the same


def crossed(*axes, first=0):
    """Return all combinations of some parameters as cases; the default profile runs enough of them to see each value.

    Those lie on a diagonal, which begins `first` places further on each axis.
    """
    longest = max(map(len, axes))
    diagonal = [[axis[(n + first * place) % len(axis)] for place, axis in enumerate(axes)] for n in range(longest)]
    return [
        pytest.param(*values, marks=() if [*values] in diagonal else thorough) for values in itertools.product(*axes)
    ]


def sampled(values, *, default=1, each=None):
    """Return values as cases; the default profile runs the first few, or one of `each` so many."""
    return [
        pytest.param(value, marks=() if (n < default if each is None else n % each == 0) else thorough)
        for n, value in enumerate(values)
    ]
