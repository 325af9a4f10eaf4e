"""Runs Huey's own tests in this process, against `lifecycle.huey`: a line of JSON for each test.

``python child.py [PATTERN …]``: only tests whose name fits one of these patterns. The store is in $HUEY_SUITE_URL.
"""

import importlib.util
import json
import os
import signal
import sys
import traceback
import unittest
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

TESTS = Path(importlib.util.find_spec("huey").submodule_search_locations[0]) / "tests"
sys.path.insert(0, str(Path(__file__).parent))
import modules  # noqa: E402 -- beside this file

LIMIT_SECONDS = 30


class Report(unittest.TestResult):
    """Writes the outcome of each test."""

    def __init__(self, out):
        super().__init__()
        self.out = out

    def startTest(self, test):  # noqa: N802
        super().startTest(test)
        self.noted = None
        signal.alarm(LIMIT_SECONDS)

    def stopTest(self, test):  # noqa: N802
        signal.alarm(0)
        status, error, text = self.noted or ("pass", "", "")
        for queue in modules.opened:
            with suppress(Exception):
                queue.close()
        modules.opened.clear()
        line = {"test": name_of(test), "status": status, "error": error, "trace": text}
        self.out.write(json.dumps(line) + "\n")
        self.out.flush()
        super().stopTest(test)

    def note(self, status, error):
        if self.noted is None:
            kind, value, trace = error
            frames = [frame for frame in traceback.extract_tb(trace) if frame.filename.startswith(str(TESTS))]
            line = frames[-1].line if frames else ""
            text = "".join(traceback.format_exception(kind, value, trace))[-3000:]
            self.noted = status, f"{line} → {kind.__name__}: {value}"[:500], text

    def addError(self, test, error):  # noqa: N802
        self.note("fail", error)

    addFailure = addError  # noqa: N815

    def addSubTest(self, test, subtest, error):  # noqa: N802
        if error is not None:
            self.note("fail", error)

    def addSkip(self, test, reason):  # noqa: N802
        self.noted = self.noted or ("skip", reason, "")


def name_of(test):
    """Return a test's name: module, class and method."""
    return f"{type(test).__module__.removeprefix('huey.tests.')}.{type(test).__qualname__}.{test._testMethodName}"


def tests_in(suite):
    """Yield the tests in a suite."""
    for part in suite:
        if isinstance(part, unittest.TestSuite):
            yield from tests_in(part)
        else:
            yield part


def too_long(number, frame):
    raise TimeoutError(f"the test took more than {LIMIT_SECONDS} s")


def main():
    """Run the tests."""
    wanted = sys.argv[1:]
    os.environ.setdefault("HUEY_SLOW_TESTS", "1")
    modules.install(TESTS)
    for difference in os.environ.get("HUEY_SUITE_HIDES", "").split():
        modules.hide(difference)
    os.chdir(modules.FILES)
    signal.signal(signal.SIGALRM, too_long)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # tests may print
    report, loader = Report(out), unittest.TestLoader()
    for file in sorted(TESTS.glob("test_*.py")):
        module = f"huey.tests.{file.stem}"
        __import__(module)
        for test in tests_in(loader.loadTestsFromModule(sys.modules[module])):
            if type(test).__module__ != module:  # imported from another file, where it runs
                continue
            if not wanted or any(fnmatchcase(name_of(test), pattern) for pattern in wanted):
                test.run(report)
    modules.clean()
    out.flush()
    os._exit(0)  # threads of tests may be left


if __name__ == "__main__":
    main()
