"""`StorageSpec` can fail: a user's adapter with a bug in it is caught, and how to come to it is told in a few steps."""

import itertools
import unittest

import pytest
from broken_adapters import BROKEN
from hypothesis import settings

from lifecycle.storage import MemoryStorage, SQLiteStorage
from lifecycle.testing import StorageSpec

MACHINE = ("test_adapter_and_model_agree", "test_every_transition_was_taken")
STEPS = 8


def spec_of(adapter, folder):
    """The specification as the adapter's author would write it; and how often the machine was started."""
    files = (str(folder / f"{number}.db") for number in itertools.count())

    class Spec(StorageSpec):
        runs = 0

        @classmethod
        def open_storage(cls):
            if issubclass(adapter, MemoryStorage):
                return adapter()
            cls.file = next(files)
            return adapter(cls.file, synchronous="off")

        def __init__(self):
            super().__init__()
            type(self).runs += 1

    if issubclass(adapter, SQLiteStorage):
        Spec.reopen = classmethod(lambda cls, storage: adapter(cls.file, synchronous="off"))
    # As they are, but for what would make this test another one each time.
    Spec.TestCase.settings = settings(Spec.TestCase.settings, database=None, derandomize=True)
    return Spec


def failures(spec, names):
    """What goes wrong in these tests of a specification."""
    result = unittest.TestResult()
    unittest.TestSuite(map(spec.TestCase, names)).run(result)
    return [text for _, text in result.failures + result.errors]


@pytest.mark.parametrize("adapter", BROKEN, ids=lambda adapter: adapter.__name__)
def test_a_bug_is_caught(tmp_path, adapter):
    """One bug in an adapter fails its specification, with the defaults: a proof of its own, or a run of a few steps."""
    spec = spec_of(adapter, tmp_path)
    names = unittest.defaultTestLoader.getTestCaseNames(spec.TestCase)
    assert set(MACHINE) < set(names)
    if failures(spec, [name for name in names if name not in MACHINE]):
        return
    [text] = failures(spec, MACHINE[:1])
    steps = [line for line in text.splitlines() if "state." in line and "state.teardown" not in line]
    assert 1 <= len(steps) <= STEPS, text


def test_defaults(tmp_path):
    """A specification tries 200 short runs, and 200 of fifty steps; an adapter without a bug passes them."""
    spec = spec_of(MemoryStorage, tmp_path)
    assert (spec.TestCase.settings.max_examples, spec.TestCase.settings.stateful_step_count) == (200, 50)
    assert failures(spec, unittest.defaultTestLoader.getTestCaseNames(spec.TestCase)) == []
    assert spec.runs >= 400
