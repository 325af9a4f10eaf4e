"""Record what Huey announces: import this from the module that makes the queue, for producers and consumers alike.

from huey_trace import record
record(huey, "trace.jsonl")
"""

from lifecycle.analysis.trace import TraceWriter


def record(huey, path):
    """Write each signal of this queue to a file; the recorder, to be closed."""
    recorder = TraceWriter(path)
    huey.signal()(recorder)  # Huey's handlers are called as ours are, and its tasks have an id and a name
    return recorder
