"""A pytest plugin: runs the tests in an order that a seed decides, and writes down which failed."""

from itertools import groupby
from pathlib import Path
from random import Random


def pytest_addoption(parser):
    parser.addoption(
        "--shuffle", type=int, metavar="SEED", help="run files, and the tests of each, in this random order"
    )
    parser.addoption("--failures", type=Path, metavar="FILE", help="append the ids of tests that fail to this file")


def pytest_collection_modifyitems(config, items):
    """Shuffle the files, and the tests in each: what the tests of a file share is made once."""
    seed = config.getoption("--shuffle")
    if seed is None:
        return
    random = Random(seed)  # each of xdist's workers finds the same order
    files = [list(tests) for _, tests in groupby(items, lambda item: item.path)]
    random.shuffle(files)
    for tests in files:
        random.shuffle(tests)
    items[:] = [test for tests in files for test in tests]


class Failures:
    """Writes down the ids of failed tests."""

    def __init__(self, path):
        self.path = path

    def pytest_runtest_logreport(self, report):
        if report.failed:
            with self.path.open("a") as file:
                file.write(f"{report.nodeid}\n")


def pytest_configure(config):
    path = config.getoption("--failures")
    if path is not None and not hasattr(config, "workerinput"):  # the controller hears of all
        config.pluginmanager.register(Failures(path))
