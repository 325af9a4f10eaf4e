"""Breaks the law in the processes that find this on their path, in the way that ``BREAK`` names.

The interpreter imports it by itself. What the demo tells of must break in its consumers, what it makes of that in the
demo itself; both have this, so each break says where it is.
"""

import os

from consumer import demo
from lifecycle.engine import Engine
from lifecycle.signals import Signals
from lifecycle.worker import Worker

send, settle = Signals.send, Worker._outcome

demo.PATIENCE = float(os.environ.get("PATIENCE", demo.PATIENCE))
demo.SCENARIOS = tuple(one for one in demo.SCENARIOS if os.environ.get("ONLY", "") in one.title)


def swap(self, signal, task, exc=None):
    """Tells of `retrying` where there was an `error`, and the other way round."""
    send(self, {"error": "retrying", "retrying": "error"}.get(signal, signal), task, exc)


def drop(self, signal, task, exc=None):
    """Does not tell of the end."""
    if signal != "complete":
        send(self, signal, task, exc)


def repeat(self, signal, task, exc=None):
    """Tells of the end twice."""
    send(self, signal, task, exc)
    if signal == "complete":
        send(self, signal, task, exc)


def zombie(self, task):
    """Takes no worker for one that was taken over."""
    return False


def miscount(self, task, outcome, error, now):
    """Stores another result than the function's."""
    if outcome.trigger == "complete":
        outcome = type(outcome)(outcome.trigger, outcome.result[:-1] + bytes([outcome.result[-1] + 1]))
    return settle(self, task, outcome, error, now)


match os.environ.get("BREAK"):
    case "swap" | "drop" | "repeat" as name:
        Signals.send = globals()[name]
    case "miscount":
        Worker._outcome = miscount
    case "silence":
        Engine.announce = lambda *given: True
