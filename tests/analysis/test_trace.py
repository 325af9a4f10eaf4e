"""The recorder of traces, and how they are read: shared by threads and processes, whole lines, nothing that stops it."""

import gc
import io
import json
import multiprocessing
import os
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import LAW, patient
from support.trace_writers import write_many

from lifecycle import SIGNAL_COMPLETE, Task
from lifecycle.analysis.trace import LINE_BYTES_LIMIT, BadTraceLine, TraceLine, TraceWriter, read
from lifecycle.testing import VirtualClock, check


def lines(path):
    """Return the lines of a trace; fail if a line cannot be read."""
    with path.open("rb") as file:
        found = [line for _, line in read(file)]
    assert [line for line in found if isinstance(line, BadTraceLine)] == []
    return found


# Written -----------------------------------------------------------------------------------------------------------


def test_trace_writer_records_every_signal_of_a_queue(tmp_path, make, clock):
    """A trace writer is a handler: the file has all signals of the queue, in order, one line each."""
    queue = make()
    queue.signal()(TraceWriter(tmp_path / "trace.jsonl", clock))

    @queue.task(retries=1, name="flaky")
    def flaky():
        raise ValueError

    result = flaky()
    while queue.run_next():
        pass
    found = lines(tmp_path / "trace.jsonl")
    assert [line.signal for line in found] == [
        "enqueued",
        "executing",
        "error",
        "retrying",
        "enqueued",
        "executing",
        "error",
    ]
    assert {(line.id, line.name, line.at) for line in found} == {(result.id, "flaky", clock.now())}
    assert check([(line.id, line.signal) for line in found], complete=True) == 7


def test_trace_writer_records_only_its_signals(tmp_path, queue):
    """Connected to some signals, a trace writer records only its signals."""
    queue.signal(SIGNAL_COMPLETE)(TraceWriter(tmp_path / "trace.jsonl"))
    queue.task()(lambda: None)()
    queue.run_next()
    assert [line.signal for line in lines(tmp_path / "trace.jsonl")] == ["complete"]


def test_line_is_an_object_with_id_signal_and_time(tmp_path):
    """A line is an object with id, signal and time, as any program can read it."""
    with TraceWriter(tmp_path / "trace.jsonl", VirtualClock(5.25)) as recorder:
        recorder("executing", Task("7", "tasks.add"))
        recorder("error", Task("7", "tasks.add"), ValueError())
        recorder.write("complete", "8")
    assert [json.loads(text) for text in (tmp_path / "trace.jsonl").read_text().splitlines()] == [
        {"id": "7", "signal": "executing", "at": 5.25, "name": "tasks.add"},
        {"id": "7", "signal": "error", "at": 5.25, "name": "tasks.add"},
        {"id": "8", "signal": "complete", "at": 5.25},
    ]


def test_existing_lines_are_kept(tmp_path):
    """Lines that are in the file already are kept."""
    for number in range(3):
        with TraceWriter(tmp_path / "trace.jsonl") as recorder:
            recorder.write("enqueued", str(number))
    assert [line.id for line in lines(tmp_path / "trace.jsonl")] == ["0", "1", "2"]


def test_closed_writer_records_nothing_and_raises_nothing(tmp_path):
    """After `close` nothing is recorded and nothing is raised; `close` may be called twice."""
    recorder = TraceWriter(tmp_path / "trace.jsonl")
    recorder.close()
    recorder.close()
    recorder("executing", Task("7", "add"))
    assert (tmp_path / "trace.jsonl").read_bytes() == b""


def test_missing_folder_raises_at_once(tmp_path):
    """A file that cannot be created raises in the constructor, not at the first signal."""
    with pytest.raises(FileNotFoundError):
        TraceWriter(tmp_path / "nowhere" / "trace.jsonl")


def test_many_processes_share_a_file(tmp_path):
    """Processes that append to one file at once leave whole lines, each writer's in its order."""
    path = tmp_path / "trace.jsonl"
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(3)
    writers = [context.Process(target=write_many, args=(path, writer, ready)) for writer in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    found = [line.id for line in lines(path)]
    assert len(found) == 900
    for writer in range(3):
        assert [one for one in found if one.startswith(f"{writer}-")] == [f"{writer}-{number}" for number in range(300)]


def test_threads_share_a_writer(tmp_path):
    """Threads that share a writer leave whole lines as well."""
    with TraceWriter(tmp_path / "trace.jsonl") as recorder:
        ready = threading.Barrier(4)

        def work(writer):
            ready.wait()
            for number in range(300):
                recorder.write("executing", f"{writer}-{number}")

        threads = [threading.Thread(target=work, args=(writer,)) for writer in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len({line.id for line in lines(tmp_path / "trace.jsonl")}) == 1200


def test_forked_process_continues_the_same_file(tmp_path):
    """A forked process continues in the same file."""
    with TraceWriter(tmp_path / "trace.jsonl") as recorder:
        child = os.fork()
        if child == 0:
            recorder.write("executing", "child")
            os._exit(0)
        os.waitpid(child, 0)
        recorder.write("executing", "parent")
    assert [line.id for line in lines(tmp_path / "trace.jsonl")] == ["child", "parent"]


FULL = """
import resource, signal, sys
from lifecycle.analysis.trace import TraceWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
recorder = TraceWriter(sys.argv[1])
recorder.write("executing", "a")
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
try:
    recorder.write("executing", "b" * 100)
except OSError as error:
    print(type(error).__name__, "bytes were written" in str(error))
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
recorder.write("executing", "c")
"""


def test_full_disk_raises_and_spoils_no_other_line(tmp_path):
    """Without space a write raises OSError; an incomplete line does not spoil the next line."""
    path = tmp_path / "trace.jsonl"
    said = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True).stdout
    assert said == "OSError True\n"
    with path.open("rb") as file:
        found = list(read(file))
    assert [line.id for _, line in found if isinstance(line, TraceLine)] == ["a", "c"]
    assert [number for number, line in found if isinstance(line, BadTraceLine)] == [2]


def test_queue_logs_a_failing_writer_and_runs_on(tmp_path, queue, monkeypatch, caplog):
    """A failing writer is logged by the queue as any handler, and tasks run."""
    recorder = queue.signal()(TraceWriter(tmp_path / "trace.jsonl"))
    monkeypatch.setattr(recorder, "write", lambda *_: 1 / 0)
    result = queue.task()(lambda: 5)()
    queue.run_next()
    assert result() == 5
    assert "ZeroDivisionError" in caplog.text


def test_unclosed_writer_loses_nothing(tmp_path):
    """A writer without `close` loses no line, and is closed without a warning when it is collected."""
    recorder = TraceWriter(tmp_path / "trace.jsonl")
    recorder.write("enqueued", "7")
    del recorder
    gc.collect()
    assert [line.id for line in lines(tmp_path / "trace.jsonl")] == ["7"]


# Read --------------------------------------------------------------------------------------------------------------


def reading(text):
    return list(read(io.BytesIO(text)))


@patient
@given(st.lists(st.tuples(st.text(), st.sampled_from([signal for signal, *_ in LAW.values()]), st.none() | st.text())))
def test_written_lines_are_read_back(tmp_path_factory, written):
    """Any ids and names, line breaks included, are read back with line numbers from 1."""
    path = tmp_path_factory.mktemp("trace") / "trace.jsonl"
    storable = [(task, said, name) for task, said, name in written if f"{task}{name}".isprintable() or "\n" in task]
    with TraceWriter(path, VirtualClock()) as recorder:
        for task, said, name in storable:
            recorder.write(said, task, name)
    with path.open("rb") as file:
        found = list(read(file))
    assert [number for number, _ in found] == list(range(1, len(storable) + 1))
    assert [(line.id, line.signal, line.name) for _, line in found] == storable


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"nonsense", "JSON is malformed"),
        (b"{", "truncated"),
        (b"[]", "Expected `object`, got `array`"),
        (b'{"signal": "executing"}', "missing required field `id`"),
        (b'{"id": "7"}', "missing required field `signal`"),
        (b'{"id": null, "signal": "executing"}', "Expected `int | str`, got `null` - at `$.id`"),
        (b'{"id": "7", "signal": 5}', "Expected `str`, got `int` - at `$.signal`"),
        (b'{"id": "7", "signal": "executing", "at": "now"}', "Expected `float | null`, got `str` - at `$.at`"),
        (b'{"id": "\xff", "signal": "executing"}', "utf-8"),  # in capitals, from msgspec 0.23 on
        (b"\x00" * 50, "malformed"),
    ],
)
def test_unreadable_line_is_reported_and_reading_continues(text, reason):
    """An unreadable line is given with its number and the reason, and the next line is read."""
    good = b'{"id": "7", "signal": "executing"}\n'
    found = reading(good + text + b"\n" + good)
    assert [number for number, _ in found] == [1, 2, 3]
    assert [type(line) for _, line in found] == [TraceLine, BadTraceLine, TraceLine]
    assert reason.lower() in found[1][1].reason.lower()


def test_variants_of_lines_are_accepted():
    """Ids that are whole numbers, empty lines, other fields, Windows line ends and a last line without end are accepted."""
    found = reading(b'\n{"id": 7, "signal": "executing", "at": 5, "host": "x"}\r\n\r\n  \n{"id": "8", "signal": "x"}')
    assert [(number, line.id, line.at) for number, line in found] == [(2, 7, 5.0), (5, "8", None)]


def test_too_long_line_is_skipped_in_little_memory():
    """A line that is too long for a trace is skipped without reading it into memory."""
    good = b'{"id": "7", "signal": "executing"}\n'
    whole = b'{"id": "' + b"x" * (LINE_BYTES_LIMIT - 60) + b'", "signal": "executing"}\n'
    found = reading(good + b"x" * (3 * LINE_BYTES_LIMIT) + b"\n" + good + whole + b"y" * (2 * LINE_BYTES_LIMIT))
    assert [(number, type(line)) for number, line in found] == [
        (1, TraceLine), (2, BadTraceLine), (3, TraceLine), (4, TraceLine), (5, BadTraceLine)
    ]  # fmt: skip
    assert found[1][1].reason == "longer than 1,000,000 bytes"


@patient
@given(st.lists(st.binary().filter(lambda text: b"\n" not in text)))
def test_random_bytes_are_lines_bad_lines_or_empty(texts):
    """No bytes are too strange: each line is read, or given as bad, or empty."""
    found = reading(b"\n".join(texts))
    assert [number for number, _ in found] == sorted({number for number, _ in found})
    assert len(found) <= len(texts)
