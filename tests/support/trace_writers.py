"""What processes do that write one trace: in a module of its own, where those that are spawned can find it."""

from lifecycle.analysis.trace import TraceWriter


def write_many(path, writer, ready):
    with TraceWriter(path) as recorder:
        ready.wait()
        for number in range(300):
            recorder.write("executing", f"{writer}-{number}", "x" * (number * 20))
