"""The verdicts about Huey's own tests, compared with a run."""

import json
import os
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path

import attrs

HERE = Path(__file__).parent
KINDS = ("different", "missing", "n.a.")


@attrs.frozen
class Verdict:
    """An entry of `verdicts.toml`."""

    tests: list[str]
    verdict: str
    reason: str
    fails: str
    hides: list[str] = attrs.field(factory=list)

    def is_about(self, test):
        """Return whether a test's name fits."""
        return any(fnmatchcase(test, pattern) for pattern in self.tests)


def read_verdicts():
    """Return the entries of `verdicts.toml`."""
    with (HERE / "verdicts.toml").open("rb") as file:
        return [Verdict(**entry) for entry in tomllib.load(file)["verdict"]]


def run_suite(url, *, only=(), hides=()):
    """Run Huey's tests on a store, in another process; return a dict for each test, by name."""
    command = [sys.executable, HERE / "child.py", *only]
    environment = {"HUEY_SUITE_URL": url, "HUEY_SUITE_HIDES": " ".join(hides)}
    ran = subprocess.run(
        command, check=False, env=os.environ | environment, capture_output=True, text=True, timeout=250
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return {line["test"]: line for line in map(json.loads, ran.stdout.splitlines())}


def count(ran):
    """Return how many tests of a run pass, and how many have each verdict."""
    found, verdicts = dict.fromkeys(("pass", *KINDS), 0), read_verdicts()
    for test, end in ran.items():
        passes = end["status"] == "pass"
        found["pass" if passes else next(one.verdict for one in verdicts if one.is_about(test))] += 1
    return found


def faults(url, ran):
    """Yield a line for each test of a run on a store that does not have its verdict."""
    verdicts = read_verdicts()
    used, hiding = set(), {}
    for test, end in ran.items():
        place, verdict = next(((n, v) for n, v in enumerate(verdicts) if v.is_about(test)), (None, None))
        if end["status"] == "pass":
            if verdict is not None and test in verdict.tests:
                yield f"{test}: passes, and stands among those that are {verdict.verdict}"
        elif verdict is None:
            yield f"{test}: has no verdict: {end['error']}"
        elif not re.search(verdict.fails, end["error"]):
            yield f"{test}: is {verdict.verdict} for another reason: {end['error']}"
        else:
            used.add(place)
            if verdict.hides:
                hiding.setdefault(tuple(verdict.hides), []).append(test)
    yield from (
        f"no test is {verdict.verdict}: {verdict.reason}" for n, verdict in enumerate(verdicts) if n not in used
    )
    for hides, tests in hiding.items():
        for test, end in run_suite(url, only=tests, hides=hides).items():
            if end["status"] != "pass":
                yield f"{test}: differs in more than {', '.join(hides)}: {end['error']}"
