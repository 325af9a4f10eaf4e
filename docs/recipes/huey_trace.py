"""Record Huey's signals: import this from the module that makes the queue, for producers and consumers alike.

from huey_trace import record
record(huey, "trace.jsonl")
"""

from lifecycle.analysis.trace import TraceWriter


def record(huey, path):
    """Write each signal of this queue to a file. Return the writer, to be closed."""
    writer = TraceWriter(path)
    huey.signal()(writer)  # Huey calls handlers with the same arguments, and its tasks have an id and a name
    return writer
