"""`lifecycle check`: traces held against a table, for people and for programs."""

import json
import os
import pty
import subprocess
import sys
import threading
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import patient

from lifecycle import LIFECYCLE
from lifecycle.analysis.properties import properties
from lifecycle.consumer.cli.main import main
from lifecycle.testing import check, legal_histories


def trace(path, signals):
    """Write a trace of ``(id, signal)`` pairs, or of other lines as they are."""
    lines = [
        json.dumps({"id": one[0], "signal": one[1], "at": 1.0}) if isinstance(one, tuple) else one for one in signals
    ]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def process(*arguments, **options):
    """A command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "lifecycle", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False,
        **options,
    )  # fmt: skip


# check -------------------------------------------------------------------------------------------------------------

LEGAL = [("a", "enqueued"), ("b", "executing"), ("a", "executing"), ("b", "complete"), ("a", "error")]


def test_check_legal(cli, tmp_path):
    """A legal trace is counted; one that begins after the producer's signals is legal, unless it must not be."""
    path = trace(tmp_path / "trace.jsonl", LEGAL)
    assert cli("check", path) == (0, "✓ 5 signals of 2 tasks: legal\n", "")
    assert cli("check", path, "--complete")[0] == 0
    code, said, _ = cli("check", path, "--strict")
    assert code == 1
    assert said.splitlines() == [
        "✗ line 2: task b: signal 1 is 'executing' as the first; legal: enqueued",
        "✗ 1 task not legal; 3 signals of 1 task were legal",
    ]


def test_check_illegal(cli, tmp_path):
    """The first illegal signal of each task is named with its line; the first at all, on demand."""
    path = trace(
        tmp_path / "trace.jsonl",
        [*LEGAL, ("b", "executing"), ("b", "complete"), ("c", "enqueued"), ("c", "complete"), ("c", "revoked")],
    )
    code, said, err = cli("check", path)
    assert (code, err) == (1, "")
    assert said.splitlines() == [
        "✗ line 6: task b: signal 3 is 'executing' after 'complete'; nothing may follow, that is final",
        "✗ line 9: task c: signal 2 is 'complete' after 'enqueued'; legal: scheduled, executing, revoked, expired",
        "✗ 2 tasks not legal; 6 signals of 3 tasks were legal",
    ]
    code, said, _ = cli("check", path, "--first")
    assert code == 1
    assert [line.split(":")[0] for line in said.splitlines()] == [
        "✗ line 6",
        "✗ 1 task not legal; 5 signals of 2 tasks were legal",
    ]


def test_check_complete(cli, tmp_path):
    """On demand every task must have come to rest; one that is not legal anyway is named once."""
    path = trace(tmp_path / "trace.jsonl", [("a", "enqueued"), ("b", "enqueued"), ("b", "complete"), ("c", "revoked")])
    code, said, _ = cli("check", path, "--complete")
    assert code == 1
    assert [line.split(";")[0] for line in said.splitlines()] == [
        "✗ line 3: task b: signal 2 is 'complete' after 'enqueued'",
        "✗ at the end: task a: ends after 'enqueued', not at rest",
        "✗ 2 tasks not legal",
    ]


def test_check_bad_lines(cli, tmp_path):
    """Lines that cannot be read are named, and the others checked all the same; there is no traceback."""
    path = trace(tmp_path / "trace.jsonl", ["nonsense", LEGAL[0], '{"id": "a"}', '{"id": "a", "signal": 5}', LEGAL[3]])
    code, said, err = cli("check", path)
    assert (code, err) == (1, "")
    assert said.splitlines()[:3] == [
        "✗ line 1: JSON is malformed: invalid character (byte 4)",
        "✗ line 3: Object missing required field `signal`",
        "✗ line 4: Expected `str`, got `int` - at `$.signal`",
    ]
    assert said.splitlines()[-1] == "✗ 1 task not legal, 3 lines not readable; 1 signal of 1 task were legal"
    path.write_bytes(b"\xff\xfe\n\n[1]\n")
    assert cli("check", path)[1].splitlines()[-1] == "✗ 2 lines not readable; 0 signals of 0 tasks were legal"


def test_check_json(cli, tmp_path):
    """Programs get a line for each fault, and one with the sum."""
    path = trace(tmp_path / "trace.jsonl", ["nonsense", *LEGAL, ("b", "error"), ("c", "executing")])
    code, said, _ = cli("check", path, "--json", "--complete")
    bad, illegal, unfinished, sums = map(json.loads, said.splitlines())
    assert code == 1
    assert bad == {"line": 1, "fault": "JSON is malformed: invalid character (byte 4)"}
    assert illegal.pop("fault").startswith("task b: signal 3 is 'error'")
    assert illegal == {"line": 7, "id": "b", "position": 3, "signal": "error", "after": "complete", "legal": []}
    assert (unfinished["line"], unfinished["id"], unfinished["after"]) == (None, "c", "executing")
    assert sums == {"lines": 8, "signals": 6, "tasks": 3, "bad_lines": 1, "illegal_tasks": 2, "legal": False}
    assert json.loads(cli("check", trace(path, LEGAL), "--json")[1])["legal"] is True


def test_check_nothing(cli):
    """An empty trace is legal, and says how little that is."""
    assert cli("check", os.devnull) == (0, "✓ 0 signals of 0 tasks: legal\n", "")


def test_check_standard_input(tmp_path):
    """Without a file, or with `-`, the trace comes from the standard input, as it is written."""
    path = trace(tmp_path / "trace.jsonl", LEGAL)
    for arguments in ((), ("-",)):
        with path.open() as file:
            done = process("check", *arguments, stdin=file)
        assert (done.returncode, done.stdout, done.stderr) == (0, "✓ 5 signals of 2 tasks: legal\n", "")


def test_check_no_file(cli, tmp_path):
    """A file that cannot be read is bad usage."""
    for path, why in ((tmp_path / "none.jsonl", "No such file or directory"), (tmp_path, "Is a directory")):
        code, said, err = cli("check", path)
        assert (code, said) == (2, "")
        assert err == f"error: the trace {path} cannot be read: {why}\n"


@pytest.mark.untraced
@patient
@given(st.lists(legal_histories(), max_size=3), st.data())
def test_check_says_what_the_checker_says(tmp_path_factory, histories, data):
    """Of any stream it says what `check` says."""
    stream = data.draw(st.permutations([(f"t{n}", signal) for n, one in enumerate(histories) for signal in one]))
    path = trace(tmp_path_factory.mktemp("trace") / "trace.jsonl", stream)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", ["lifecycle", "check", str(path), "--strict"])
        main()
    try:
        check(stream)
    except AssertionError:
        assert ended.value.code == 1
    else:
        assert not ended.value.code


def test_check_another_table(cli, tmp_path):
    """A trace can be held against a table of one's own; one that cannot be built is what was found wrong."""
    path = trace(tmp_path / "trace.jsonl", [("x", "opened"), ("x", "closed"), ("y", "enqueued")])
    code, said, _ = cli("check", path, "--table", "own:TABLE")
    assert code == 1
    assert said.splitlines()[0] == "✗ line 3: task y: signal 1 is 'enqueued' as the first; legal: closed, opened"
    code, said, err = cli("check", path, "--table", "faulty")
    assert (code, said) == (1, "")
    assert "c is a trap" in err


# --map -------------------------------------------------------------------------------------------------------------

THEIRS = [("a", "sent"), ("a", "task started"), ("a", "progress"), ("a", "done"), ("a", "sent")]
NAMES = {"sent": "enqueued", "task started": "executing", "done": "complete", "progress": ""}


@pytest.mark.parametrize("kind", ["json", "toml"])
def test_map(cli, tmp_path, kind):
    """Another system's signals are translated, and those with an empty name left out; a fault names both."""
    names = tmp_path / f"map.{kind}"
    names.write_text(json.dumps(NAMES) if kind == "json" else "".join(f'"{a}" = "{b}"\n' for a, b in NAMES.items()))
    path = trace(tmp_path / "trace.jsonl", THEIRS[:-1])
    assert cli("check", path, "--map", names, "--complete")[:2] == (0, "✓ 3 signals of 1 task: legal\n")
    code, said, _ = cli("check", trace(path, THEIRS), "--map", names)
    assert code == 1
    assert said.splitlines()[0] == (
        "✗ line 5: task a: signal 4 is 'enqueued' after 'complete'; nothing may follow, that is final (sent)"
    )
    assert json.loads(cli("check", path, "--map", names, "--json")[1].splitlines()[0])["recorded"] == "sent"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("map.json", "{", "cannot be read: Input data was truncated"),
        ("map.toml", "a = ", "cannot be read: Invalid value (at end of document)"),
        ("map.toml", b"\xff", "cannot be read: 'utf-8' codec"),
        ("map.json", "[]", "is no object of names, as in {'task-started': 'enqueued'}"),
        (
            "map.json",
            '{"sent": "queued"}',
            "calls 'sent' 'queued', which is no signal: there are enqueued, scheduled, ",
        ),
        ("map.toml", "sent = 5", "calls 'sent' 5 (a text is expected), which is no signal"),
        ("map.json", '{"sent": null}', "calls 'sent' None (a text is expected)"),
        ("map.json", '{"sent": ["enqueued"]}', "calls 'sent' ['enqueued'] (a text is expected)"),
        ("map.yaml", "sent: enqueued", "is neither .json nor .toml"),
        ("map.json", None, "cannot be read: No such file or directory"),
    ],
)
def test_bad_maps(cli, tmp_path, name, text, said):
    """A map that is none is bad usage: one line says which file, and what is wrong."""
    path = tmp_path / name
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    code, out, err = cli("check", trace(tmp_path / "trace.jsonl", THEIRS), "--map", path)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: the map {path} ")
    assert said in err
    assert err.count("\n") == 1


def test_map_to_another_table(cli, tmp_path):
    """The names in a map are those of the table that the trace is held against."""
    names = tmp_path / "map.json"
    names.write_text('{"sent": "opened"}')
    path = trace(tmp_path / "trace.jsonl", [("a", "sent"), ("a", "closed")])
    assert cli("check", path, "--map", names, "--table", "own")[0] == 0
    assert "which is no signal" in cli("check", path, "--map", names)[2]


# Long traces, and who looks at them --------------------------------------------------------------------------------


def long_trace(path, lives):
    """So many lives, two at a time."""
    with path.open("w") as file:
        for number in range(0, lives, 2):
            for signal in ("enqueued", "executing", "complete"):
                for task in (number, number + 1):
                    file.write(f'{{"id": "task-{task}", "signal": "{signal}", "at": 1.5}}\n')
    return path


def test_flat_memory(cli, tmp_path, monkeypatch):
    """A trace ten times as long takes no more memory, whether its tasks are legal or their lines cannot be read."""
    monkeypatch.setattr("lifecycle.analysis.checker.REMEMBERED_TASK_COUNT", 500)

    def peak(path):
        tracemalloc.start()
        try:
            assert cli("check", path)[0] == 0
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    short, long = long_trace(tmp_path / "short.jsonl", 2_000), long_trace(tmp_path / "long.jsonl", 20_000)
    peak(short)  # what is imported late is not the trace's
    assert peak(long) < peak(short) * 1.3


def on_terminal(*command):
    """Run a command whose standard error is a terminal, and its output a pipe: exit code, and what it wrote to both."""
    master, slave = pty.openpty()
    seen = []

    def look():
        try:
            while part := os.read(master, 4096):
                seen.append(part)
        except OSError:  # the other end is closed
            pass

    looking = threading.Thread(target=look)
    looking.start()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=slave, env=os.environ | {"TERM": "xterm"}) as running:
        os.close(slave)
        out = running.stdout.read()
        code = running.wait(60)
    looking.join(60)
    os.close(master)
    return code, out.decode(), b"".join(seen).decode()


def test_progress(tmp_path):
    """On a terminal it shows how far it is, on the standard error stream; elsewhere it does not."""
    path = long_trace(tmp_path / "trace.jsonl", 20_000)
    code, said, shown = on_terminal(sys.executable, "-m", "lifecycle", "check", str(path))
    assert (code, said) == (0, "✓ 60,000 signals of 20,000 tasks: legal\n")
    assert "lines" in shown
    assert process("check", path).stderr == ""


def test_reader_that_has_seen_enough(tmp_path):
    """If the reader of its output goes away it ends, without a traceback."""
    path = trace(tmp_path / "trace.jsonl", [(f"task-{number}", "complete") for number in range(20_000)])
    for options in ((), ("--json",)):
        with subprocess.Popen(
            [sys.executable, "-m", "lifecycle", "check", str(path), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as running:
            assert running.stdout.readline().startswith((b"\xe2\x9c\x97 line 1:", b'{"line":1,'))
            running.stdout.close()
            assert running.stderr.read() == b""
            assert running.wait(60) == 1


def test_the_law_is_the_default():
    """Both commands are about this queue's table, if no other is named."""
    assert properties() == properties(LIFECYCLE)
