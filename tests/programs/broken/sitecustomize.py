"""Break the law in each process that has this module on its path, in the way that ``BREAK`` names.

The interpreter imports this module by itself, in the demo and in its consumers.
"""

import os
import sys

from lifecycle.consumer.demo import demo, environment
from lifecycle.execution.signals import Signals
from lifecycle.execution.worker import Worker
from lifecycle.result import Result

send, history, outcome = Signals.send, Result.history, Worker._settlement


def swap(self, signal, task, exc=None):
    """Send `retrying` in place of `error`, and `error` in place of `retrying`."""
    send(self, {"error": "retrying", "retrying": "error"}.get(signal, signal), task, exc)


def drop(self, signal, task, exc=None):
    """Do not send `complete`."""
    if signal != "complete":
        send(self, signal, task, exc)


def repeat(self, signal, task, exc=None):
    """Send `complete` twice."""
    send(self, signal, task, exc)
    if signal == "complete":
        send(self, signal, task, exc)


def miscount(self, task, result, *rest):
    """Store another number than the function returned."""
    if result.trigger == "complete":
        result = type(result)(result.trigger, result.result[:-1] + bytes([result.result[-1] + 1]))
    return outcome(self, task, result, *rest)


environment.SIGNAL_TIMEOUT_SECONDS = float(os.environ.get("SIGNAL_TIMEOUT_SECONDS", environment.SIGNAL_TIMEOUT_SECONDS))
demo.SCENARIOS = tuple(one for one in demo.SCENARIOS if os.environ.get("ONLY", "") in one.title)
match os.environ.get("BREAK"):
    case "swap":
        Signals.send = swap
    case "drop":
        Signals.send = drop
    case "repeat":
        Signals.send = repeat
    case "miscount":
        Worker._settlement = miscount
    case "forget":
        Result.history = lambda self: history(self)[:-1]
    case "stillborn" if "run" in sys.orig_argv:
        os._exit(3)
