"""Huey's own tests, run against `lifecycle.huey` on each store."""

import re

import pytest
from generate.pages import DOCS
from huey_suite.verdicts import KINDS, count, faults, read_verdicts, run_suite

PAGE = DOCS / "start" / "from-huey.md"
"""The page for those who come from Huey, which has the figures."""

pytestmark = pytest.mark.untraced


def test_each_test_of_huey_passes_or_has_its_verdict(url):
    """Each of Huey's tests passes on each store, or fails as its verdict says, for a reason that is written down."""
    ran = run_suite(url)
    assert list(faults(url, ran)) == []
    sentence = "{pass} pass, {different} are different on purpose, {missing} need what is missing, and {n.a.} are not"
    numbers = re.sub(r"\{([\w.]+)\}", lambda name: str(count(ran)[name[1]]), sentence)
    assert numbers in " ".join(PAGE.read_text().split())


def test_each_verdict_has_a_reason():
    """Each verdict is of a known kind, with a reason and a failure that it expects."""
    for verdict in read_verdicts():
        assert verdict.verdict in KINDS
        assert verdict.reason
        assert verdict.fails
