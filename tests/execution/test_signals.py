"""Registration and calls of signal handlers."""

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


class NotingHandler:
    """Handler that notes its calls, and raises `raises` if there is one."""

    def __init__(self, calls, name="", raises=None):
        self.calls, self.name, self.raises = calls, name, raises

    def __call__(self, *arguments):
        self.calls.append((self.name, *arguments))
        if self.raises is not None:
            raise self.raises
        return "ignored"

    def method(self, *arguments):
        self(*arguments)

    def __repr__(self):
        return f"<handler {self.name}>"


# Registration --------------------------------------------------------------------------------------------------------

names = st.lists(st.sampled_from(NAMES), max_size=3)
steps = st.lists(st.tuples(st.sampled_from(["connect", "connect", "disconnect"]), st.sampled_from("abc"), names))


@patient
@given(steps)
def test_each_signal_calls_its_handlers_in_order_of_registration(steps):
    """After any connects and disconnects each signal calls its handlers once, in the order of their registration."""
    calls, signals, model = [], Signals(), []  # model: each handler and its signals
    handlers = {name: NotingHandler(calls, name) for name in "abc"}
    for step, name, wanted in steps:
        if step == "connect":
            signals.connect(handlers[name], wanted)
            has = next((has for who, has in model if who == name), None)
            if has is None:
                model.append((name, has := set()))
            has.update(wanted or NAMES)
        else:
            signals.disconnect(handlers[name], iter(wanted))
            model = [(who, has - set(wanted or NAMES) if who == name else has) for who, has in model]
            model = [(who, has) for who, has in model if has]
        for signal in NAMES:
            calls.clear()
            signals.send(signal, task)
            assert [call[0] for call in calls] == [who for who, has in model if signal in has]
        assert set(signals.connected) == {signal for signal in NAMES if any(signal in has for _, has in model)}


def test_handlers_of_one_signal_and_of_all_share_one_order():
    """Handlers of one signal and of every signal are called in one order, that of their registration."""
    calls, signals = [], Signals()
    signals.connect(NotingHandler(calls, "all"))
    signals.connect(NotingHandler(calls, "one"), ["locked"])
    signals.connect(NotingHandler(calls, "two"), ("locked", "error"))
    signals.connect(NotingHandler(calls, "last"), ())
    signals.send("locked", task)
    signals.send("revoked", task)
    assert [name for name, *_ in calls] == ["all", "one", "two", "last", "all", "last"]


def test_bound_method_can_be_disconnected():
    """A bound method can be disconnected, though each access to it makes a new object."""
    calls, signals = [], Signals()
    handler, other = NotingHandler(calls, "handler"), NotingHandler(calls, "other")
    signals.connect(handler.method)
    signals.connect(other.method)
    signals.disconnect(handler.method, ["complete"])
    for signal in ("complete", "locked"):
        signals.send(signal, task)
    assert calls == [("other", "complete", task), ("handler", "locked", task), ("other", "locked", task)]


def test_disconnected_handler_is_not_kept_alive():
    """A handler that is disconnected from all its signals is not kept alive."""
    signals, handler = Signals(), NotingHandler([])
    signals.connect(handler, ["complete", "error"])
    signals.disconnect(handler, ["complete"])
    signals.disconnect(handler, ["error"])
    watch = weakref.ref(handler)
    del handler
    gc.collect()
    assert watch() is None


def test_handlers_of_one_queue_do_not_get_signals_of_another():
    """A handler gets the signals of its own queue only."""
    calls, here, there = [], Signals(), Signals()
    here.connect(NotingHandler(calls))
    there.send("complete", task)
    assert (calls, there.connected) == ([], {})


# Calls ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", NAMES)
def test_handler_gets_signal_task_and_exception_of_an_error(signal):
    """A handler is called with signal and task; for an error, and only then, with the exception as well."""
    calls, signals, exc = [], Signals(), ValueError("x")
    signals.connect(NotingHandler(calls, "a"), [signal])
    signals.send(signal, task, exc)
    signals.send(signal, task)
    if signal == "error":
        assert calls == [("a", signal, task, exc), ("a", signal, task, None)]
    else:
        assert calls == [("a", signal, task)] * 2
    assert calls[0][2] is task
    assert SIGNAL_ERROR == "error"


@seldom
@given(st.lists(st.sampled_from([None, ValueError, KeyError("x"), RecursionError, StopIteration]), max_size=6))
def test_handler_that_raises_stops_no_other_handler(faults):
    """A handler that raises stops neither the other handlers nor the sender."""
    calls, signals = [], Signals()
    for place, fault in enumerate(faults):
        signals.connect(NotingHandler(calls, place, fault), ["complete"] if place % 2 else [])
    for _ in range(2):
        calls.clear()
        assert signals.send("complete", task) is None
        assert [name for name, *_ in calls] == list(range(len(faults)))


def test_handler_that_raises_is_logged(caplog):
    """A handler that raises is logged: handler, signal, task and exception."""
    signals = Signals()
    signals.connect(NotingHandler([], "bad", ZeroDivisionError("the reason")))
    signals.connect(NotingHandler([], "good"))
    with caplog.at_level(logging.INFO):
        signals.send("error", task, ValueError("x"))
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("lifecycle.signals", logging.ERROR)
    assert all(word in record.getMessage() for word in ("<handler bad>", "signal=error", "task=7", "function=add"))
    assert record.exc_info[0] is ZeroDivisionError


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_exception_that_is_no_exception_passes_through_send(stop):
    """A `BaseException` that is no `Exception` passes through `send`, and later handlers are not called."""
    calls, signals = [], Signals()
    signals.connect(NotingHandler(calls, 1, stop))
    signals.connect(NotingHandler(calls, 2))
    with pytest.raises(stop):
        signals.send("complete", task)
    assert [name for name, *_ in calls] == [1]


def test_registration_in_a_handler_counts_from_the_next_signal_on():
    """A handler can connect and disconnect handlers: the signal being sent still calls those registered before."""
    calls, signals = [], Signals()
    late, gone = NotingHandler(calls, "late"), NotingHandler(calls, "gone")

    def change(signal, task, exc=None):
        calls.append(("change",))
        signals.connect(late)
        signals.disconnect(gone)
        signals.disconnect(change)

    signals.connect(change)
    signals.connect(gone)
    signals.send("complete", task)
    signals.send("complete", task)
    assert [name for name, *_ in calls] == ["change", "gone", "late"]


# Names that are no signal --------------------------------------------------------------------------------------------


@patient
@given(st.text() | st.sampled_from(["complet", "queued", "COMPLETE", "rate_limited", ""]), names, names)
def test_misspelled_signal_is_refused_with_a_list_of_signals(word, before, after):
    """A name that is no signal is refused with a list of the signals; nothing is changed."""
    for wrong in {word, *LAW, *LIFECYCLE.triggers} - set(NAMES):
        calls, signals = [], Signals()
        handler = NotingHandler(calls)
        signals.connect(handler, ["complete"])
        known = signals.connected
        for ask in (signals.connect, signals.disconnect):
            with pytest.raises(UnknownSignal) as caught:
                ask(handler, [*before, wrong, *after])
            assert isinstance(caught.value, ConfigurationError)
            assert str(caught.value).startswith(f"no signal {wrong!r}: ")
            assert all(signal in str(caught.value) for signal in NAMES)
            assert signals.connected == known == {"complete": (handler,)}


@pytest.mark.parametrize("wrong", [None, 1, b"error", ["error"], len])
def test_signal_that_is_no_text_is_refused(wrong):
    """A value that is no text is refused as a signal."""
    with pytest.raises(UnknownSignal, match="no signal"):
        Signals().connect(len, [wrong])


def test_one_name_in_place_of_a_list_is_refused():
    """One signal's name in place of a list is refused, not read as a list of letters."""
    with pytest.raises(UnknownSignal):
        Signals().connect(len, "error")


def test_check_signals_returns_the_signals_in_order():
    """`check_signals` returns the checked signals in their order."""
    assert check_signals(iter(NAMES[::-1])) == tuple(NAMES[::-1]) == SIGNALS[::-1]
    assert check_signals(()) == ()
