"""`StorageSpec` finds bugs in adapters, and shows them in few steps."""

import re
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from support.faulty_adapters import BUGS, MACHINE
from support.profiles import IS_THOROUGH, repeat_until, sampled

from lifecycle.errors import StorageError
from lifecycle.storage import MemoryStorage, SQLiteStorage
from lifecycle.testing.storage_spec.spec import StorageSpec

STEPS = 20
"""The longest counterexample, in steps of the machine: as many as the short runs have, had none been shrunk away."""
SHRINKING = 3.0 if IS_THOROUGH else 0.3
"""Seconds of shrinking for each counterexample; the author of an adapter would give it minutes."""


def spec_of(adapter):
    """Return the spec of an adapter, as its author would write it."""

    class Spec(StorageSpec):
        @classmethod
        def open_storage(cls):
            if not issubclass(adapter, SQLiteStorage):
                return adapter()
            cls.folder = tempfile.mkdtemp()
            return adapter(str(Path(cls.folder) / "q.db"), synchronous="off")

        def teardown(self):
            try:
                super().teardown()
            finally:
                if issubclass(adapter, SQLiteStorage):
                    shutil.rmtree(self.folder)

    if issubclass(adapter, SQLiteStorage):
        Spec.reopen = classmethod(lambda cls, storage: adapter(str(Path(cls.folder) / "q.db"), synchronous="off"))
    return Spec


def shown(error):
    """Return the steps of the counterexample in an error."""
    notes = "\n".join(getattr(error, "__notes__", ()))
    return [
        name
        for name in re.findall(r"^(?:[\w, ()]+ = )?state\.(\w+)\(", notes, re.MULTILINE)
        if name != "adapter_and_model_agree"
    ]


@pytest.mark.untraced
@pytest.mark.parametrize("adapter", sampled(BUGS, each=3), ids=lambda adapter: adapter.__name__)
def test_faulty_adapter_is_found(adapter, monkeypatch):
    """Each bug is found by a test of the spec, with the default number of examples, in few steps.

    The message names the call, the adapter's answer and the model's answer.
    """
    monkeypatch.setattr("hypothesis.internal.conjecture.engine.MAX_SHRINKING_SECONDS", SHRINKING)
    says, by = BUGS[adapter]
    case = spec_of(adapter).TestCase
    assert case.settings.max_examples == 200
    assert case.settings.stateful_step_count == 50
    case.settings = settings(
        case.settings, derandomize=True, database=None, phases=(Phase.generate, Phase.shrink), print_blob=False
    )
    if by == MACHINE:  # how far it is shrunk depends on the machine that it is shrunk on
        says += "|: the adapter says .+, the model "
    with pytest.raises(AssertionError, match=f"(?s){says}") as caught:
        case(by).debug()
    steps = shown(caught.value)
    if by == MACHINE:
        assert steps.pop() == "teardown"
        assert 0 < len(steps) <= STEPS
        assert steps[0].startswith(("enqueue", "make_ticks", "work_on_workflow"))


def test_faulty_adapters_of_each_kind_exist():
    """There are bugs of each kind; most are found by random runs, the others by a fixed test."""
    assert len(BUGS) >= 20
    assert all(adapter.__doc__ for adapter in BUGS)
    assert sum(by == MACHINE for _, by in BUGS.values()) >= 15


def test_broken_off_run_is_not_judged():
    """A run that Hypothesis breaks off is not checked at its end, so that it can shrink; its store is closed."""
    machine = spec_of(next(iter(BUGS)))()
    machine.adapter_and_model_agree()
    machine.run_to_rest = lambda: pytest.fail("it was judged")
    with pytest.raises(KeyboardInterrupt):
        try:
            raise KeyboardInterrupt
        finally:
            machine.teardown()
    with pytest.raises(StorageError):
        machine.handles[0].counts()


def test_random_runs_take_every_transition():
    """Enough random runs take every transition of the table, and end attempts in every way."""

    class Spec(spec_of(MemoryStorage)):
        pass

    case = Spec.TestCase("test_adapter_and_model_agree")
    type(case).settings = settings(type(case).settings, max_examples=5)
    repeat_until(case.test_adapter_and_model_agree, Spec, lambda: not Spec.missing())
    assert Spec.missing() == []


def test_missing_transition_is_named():
    """A transition that no run has taken is named."""

    class Spec(spec_of(MemoryStorage)):
        @classmethod
        def missing(cls):
            return ["an unheard-of row"]

    with pytest.raises(AssertionError, match="no run has reached: an unheard-of row"):
        Spec.TestCase("test_every_transition_was_taken").test_every_transition_was_taken()
