"""Huey's own tests, run against `lifecycle.huey` on each store."""

import pytest
from huey_suite.verdicts import KINDS, faults, read_verdicts

pytestmark = pytest.mark.untraced


def test_each_test_of_huey_passes_or_has_its_verdict(url):
    """Each of Huey's tests passes on each store, or fails as its verdict says, for a reason that is written down."""
    assert list(faults(url)) == []


def test_each_verdict_has_a_reason():
    """Each verdict is of a known kind, with a reason and a failure that it expects."""
    for verdict in read_verdicts():
        assert verdict.verdict in KINDS
        assert verdict.reason
        assert verdict.fails
