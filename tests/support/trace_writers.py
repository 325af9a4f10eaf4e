"""Processes that write one trace, in a module that spawned processes can import."""

from lifecycle.analysis.trace import TraceWriter


def write_many(path, writer, ready):
    with TraceWriter(path) as recorder:
        ready.wait()
        for number in range(300):
            recorder.write("executing", f"{writer}-{number}", "x" * (number * 20))
