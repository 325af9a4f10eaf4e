"""Signals: who hears of what, in which order, and that nobody silences anybody."""

import gc
import logging
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import LAW, patient, seldom

from lifecycle.core.table import LIFECYCLE
from lifecycle.core.task import Task
from lifecycle.errors import ConfigurationError, UnknownSignal
from lifecycle.execution.signals import SIGNAL_ERROR, SIGNALS, Signals, check_signals

NAMES = [signal for signal, *_ in LAW.values()]
task = Task("7", "add")


class Ear:
    """A handler that writes down what it hears, and raises if it shall."""

    def __init__(self, heard, name="", raises=None):
        self.heard, self.name, self.raises = heard, name, raises

    def __call__(self, *told):
        self.heard.append((self.name, *told))
        if self.raises is not None:
            raise self.raises
        return "ignored"

    def hear(self, *told):
        self(*told)

    def __repr__(self):
        return f"<ear {self.name}>"


# Who hears of what -------------------------------------------------------------------------------------------------

names = st.lists(st.sampled_from(NAMES), max_size=3)
steps = st.lists(st.tuples(st.sampled_from(["connect", "connect", "disconnect"]), st.sampled_from("abc"), names))


@patient
@given(steps)
def test_any_registrations(steps):
    """Whatever came and went, each signal is told to those who want it, in the order of their registration."""
    heard, signals, model = [], Signals(), []  # of the model: each registration's handler, and what it still wants
    ears = {name: Ear(heard, name) for name in "abc"}
    for step, name, wanted in steps:
        if step == "connect":
            signals.connect(ears[name], wanted)
            model.append((name, set(wanted or NAMES)))
        else:
            signals.disconnect(ears[name], iter(wanted))
            model = [(who, has - set(wanted or NAMES) if who == name else has) for who, has in model]
        for signal in NAMES:
            heard.clear()
            signals.send(signal, task)
            assert [told[0] for told in heard] == [who for who, has in model if signal in has]
        assert set(signals.connected) == {signal for signal in NAMES if any(signal in has for _, has in model)}


def test_one_and_all():
    """A handler for one signal and one for every signal take turns alike, in the order of their registration."""
    heard, signals = [], Signals()
    signals.connect(Ear(heard, "all"))
    signals.connect(Ear(heard, "one"), ["locked"])
    signals.connect(Ear(heard, "two"), ("locked", "error"))
    signals.connect(Ear(heard, "last"), ())
    signals.send("locked", task)
    signals.send("revoked", task)
    assert [name for name, *_ in heard] == ["all", "one", "two", "last", "all", "last"]


def test_methods():
    """A bound method is disconnected as it was connected, though each look at it makes a new one."""
    heard, signals = [], Signals()
    ear, other = Ear(heard, "ear"), Ear(heard, "other")
    signals.connect(ear.hear)
    signals.connect(other.hear)
    signals.disconnect(ear.hear, ["complete"])
    for signal in ("complete", "locked"):
        signals.send(signal, task)
    assert heard == [("other", "complete", task), ("ear", "locked", task), ("other", "locked", task)]


def test_gone_is_gone():
    """A handler that wants nothing any more is let go, not kept for nothing."""
    signals, ear = Signals(), Ear([])
    signals.connect(ear, ["complete", "error"])
    signals.disconnect(ear, ["complete"])
    signals.disconnect(ear, ["error"])
    watch = weakref.ref(ear)
    del ear
    gc.collect()
    assert watch() is None


def test_each_queue_its_own():
    """What is connected here is not heard there."""
    heard, here, there = [], Signals(), Signals()
    here.connect(Ear(heard))
    there.send("complete", task)
    assert (heard, there.connected) == ([], {})


# How they are called -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", NAMES)
def test_arguments(signal):
    """A handler is called with signal and task; for an error, and only then, with the exception as well."""
    heard, signals, exc = [], Signals(), ValueError("x")
    signals.connect(Ear(heard, "a"), [signal])
    signals.send(signal, task, exc)
    signals.send(signal, task)
    if signal == "error":
        assert heard == [("a", signal, task, exc), ("a", signal, task, None)]
    else:
        assert heard == [("a", signal, task)] * 2
    assert heard[0][2] is task
    assert SIGNAL_ERROR == "error"


@seldom
@given(st.lists(st.sampled_from([None, ValueError, KeyError("x"), RecursionError, StopIteration]), max_size=6))
def test_nobody_is_silenced(faults):
    """A handler that raises stops neither the others nor the sender."""
    heard, signals = [], Signals()
    for place, fault in enumerate(faults):
        signals.connect(Ear(heard, place, fault), ["complete"] if place % 2 else [])
    for _ in range(2):
        heard.clear()
        assert signals.send("complete", task) is None
        assert [name for name, *_ in heard] == list(range(len(faults)))


def test_faults_are_logged(caplog):
    """A handler that raises is logged: which, on what, of which task, and why."""
    signals = Signals()
    signals.connect(Ear([], "bad", ZeroDivisionError("the reason")))
    signals.connect(Ear([], "good"))
    with caplog.at_level(logging.INFO):
        signals.send("error", task, ValueError("x"))
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("lifecycle.signals", logging.ERROR)
    assert all(word in record.getMessage() for word in ("<ear bad>", "signal=error", "task=7", "function=add"))
    assert record.exc_info[0] is ZeroDivisionError


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_stop_passes(stop):
    """What is no `Exception` is meant for the thread: it passes through, and later handlers are not called."""
    heard, signals = [], Signals()
    signals.connect(Ear(heard, 1, stop))
    signals.connect(Ear(heard, 2))
    with pytest.raises(stop):
        signals.send("complete", task)
    assert [name for name, *_ in heard] == [1]


def test_registration_while_it_sends():
    """A handler may connect and disconnect: the signal on its way still goes to those who were there before."""
    heard, signals = [], Signals()
    late, gone = Ear(heard, "late"), Ear(heard, "gone")

    def change(signal, task):
        heard.append(("change",))
        signals.connect(late)
        signals.disconnect(gone)
        signals.disconnect(change)

    signals.connect(change)
    signals.connect(gone)
    signals.send("complete", task)
    signals.send("complete", task)
    assert [name for name, *_ in heard] == ["change", "gone", "late"]


# What there is no signal for ---------------------------------------------------------------------------------------


@patient
@given(st.text() | st.sampled_from(["complet", "queued", "COMPLETE", "rate_limited", ""]), names, names)
def test_a_misspelt_signal(word, before, after):
    """A signal that there is not is refused where it is named, with a list of those there are; nothing is changed."""
    for wrong in {word, *LAW, *LIFECYCLE.triggers} - set(NAMES):
        heard, signals = [], Signals()
        ear = Ear(heard)
        signals.connect(ear, ["complete"])
        known = signals.connected
        for ask in (signals.connect, signals.disconnect):
            with pytest.raises(UnknownSignal) as caught:
                ask(ear, [*before, wrong, *after])
            assert isinstance(caught.value, ConfigurationError)
            assert str(caught.value).startswith(f"no signal {wrong!r}: ")
            assert all(signal in str(caught.value) for signal in NAMES)
            assert signals.connected == known == {"complete": (ear,)}


@pytest.mark.parametrize("wrong", [None, 1, b"error", ["error"], len])
def test_no_word_at_all(wrong):
    """What is not even text is no signal."""
    with pytest.raises(UnknownSignal, match="no signal"):
        Signals().connect(len, [wrong])


def test_a_bare_word():
    """One signal's name where a list of them belongs is refused, not taken for a list of letters."""
    with pytest.raises(UnknownSignal):
        Signals().connect(len, "error")


def test_check():
    """What is checked comes back as it is, in its order."""
    assert check_signals(iter(NAMES[::-1])) == tuple(NAMES[::-1]) == SIGNALS[::-1]
    assert check_signals(()) == ()
