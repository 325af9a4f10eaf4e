"""`lifecycle check`: traces compared with a table, for people and for programs."""

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


def test_check_counts_a_legal_trace(cli, tmp_path):
    """A legal trace is counted. A trace without the producer's signals is legal, unless `--strict` is given."""
    path = trace(tmp_path / "trace.jsonl", LEGAL)
    assert cli("check", path) == (0, "✓ 5 signals of 2 tasks: legal\n", "")
    assert cli("check", path, "--complete")[0] == 0
    code, said, _ = cli("check", path, "--strict")
    assert code == 1
    assert said.splitlines() == [
        "✗ line 2: task b: signal 1 is 'executing' as the first; legal: enqueued, pending",
        "✗ 1 task not legal; 3 signals of 1 task were legal",
    ]


def test_check_names_the_first_illegal_signal_of_each_task(cli, tmp_path):
    """The first illegal signal of each task is named with its line; with `--first` only the first of all."""
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


def test_check_complete_names_unfinished_tasks(cli, tmp_path):
    """With `--complete` every task must rest at the end; a task that is not legal anyway is named once."""
    path = trace(tmp_path / "trace.jsonl", [("a", "enqueued"), ("b", "enqueued"), ("b", "complete"), ("c", "revoked")])
    code, said, _ = cli("check", path, "--complete")
    assert code == 1
    assert [line.split(";")[0] for line in said.splitlines()] == [
        "✗ line 3: task b: signal 2 is 'complete' after 'enqueued'",
        "✗ at the end: task a: ends after 'enqueued', not at rest",
        "✗ 2 tasks not legal",
    ]


def test_check_names_unreadable_lines_and_goes_on(cli, tmp_path):
    """Unreadable lines are named, without a traceback, and the other lines are checked."""
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


def test_check_json_is_a_line_for_each_fault_and_the_sums(cli, tmp_path):
    """With `--json` it prints a line for each fault, and one with the sums."""
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


def test_check_of_an_empty_trace_is_legal(cli):
    """An empty trace is legal; the output says that there were no signals."""
    assert cli("check", os.devnull) == (0, "✓ 0 signals of 0 tasks: legal\n", "")


def test_check_reads_standard_input(tmp_path):
    """Without a file, or with `-`, the trace comes from the standard input, as it is written."""
    path = trace(tmp_path / "trace.jsonl", LEGAL)
    for arguments in ((), ("-",)):
        with path.open() as file:
            done = process("check", *arguments, stdin=file)
        assert (done.returncode, done.stdout, done.stderr) == (0, "✓ 5 signals of 2 tasks: legal\n", "")


def test_check_shows_its_progress_on_a_terminal(cli, tmp_path, monkeypatch):
    """On a terminal a bar shows how much of a long trace is read; a fault is still a line of the output."""
    monkeypatch.setattr("lifecycle.consumer.cli.check.PROGRESS_LINE_COUNT", 2)
    monkeypatch.setenv("FORCE_COLOR", "1")
    path = trace(tmp_path / "trace.jsonl", [*LEGAL, ("b", "executing")])
    code, said, bar = cli("check", path)
    assert code == 1
    assert "line 6" in said
    assert "6 lines" in bar


def test_check_of_an_unreadable_file_is_bad_usage(cli, tmp_path):
    """A file that cannot be read is bad usage."""
    for path, why in ((tmp_path / "none.jsonl", "No such file or directory"), (tmp_path, "Is a directory")):
        code, said, err = cli("check", path)
        assert (code, said) == (2, "")
        assert err == f"error: the trace {path} cannot be read: {why}\n"


@pytest.mark.untraced
@patient
@given(st.lists(legal_histories(), max_size=3), st.data())
def test_check_agrees_with_the_checker(tmp_path_factory, histories, data):
    """For any stream of signals the command agrees with `lifecycle.testing.check`."""
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


def test_check_takes_a_table_of_the_user(cli, tmp_path):
    """A trace can be compared with a table of the user; a table that cannot be built is exit code 1."""
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
def test_map_renames_and_leaves_out_signals(cli, tmp_path, kind):
    """Another system's signals are renamed, those with an empty name left out; a fault names both names."""
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
def test_wrong_map_is_bad_usage(cli, tmp_path, name, text, said):
    """A wrong map is bad usage: one line names the file and the fault."""
    path = tmp_path / name
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    code, out, err = cli("check", trace(tmp_path / "trace.jsonl", THEIRS), "--map", path)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: the map {path} ")
    assert said in err
    assert err.count("\n") == 1


def test_map_takes_the_names_of_the_given_table(cli, tmp_path):
    """The names in a map are those of the table that the trace is compared with."""
    names = tmp_path / "map.json"
    names.write_text('{"sent": "opened"}')
    path = trace(tmp_path / "trace.jsonl", [("a", "sent"), ("a", "closed")])
    assert cli("check", path, "--map", names, "--table", "own")[0] == 0
    assert "which is no signal" in cli("check", path, "--map", names)[2]


# Long traces, terminals and pipes ----------------------------------------------------------------------------------


def long_trace(path, lives):
    """Write the traces of so many tasks, two at a time."""
    with path.open("w") as file:
        for number in range(0, lives, 2):
            for signal in ("enqueued", "executing", "complete"):
                for task in (number, number + 1):
                    file.write(f'{{"id": "task-{task}", "signal": "{signal}", "at": 1.5}}\n')
    return path


def test_memory_does_not_grow_with_the_trace(cli, tmp_path, monkeypatch):
    """A trace that is ten times as long takes no more memory."""
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
    """Run a command with a terminal as standard error and a pipe as output; return exit code, stdout and stderr."""
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


def test_progress_is_shown_on_a_terminal_only(tmp_path):
    """If the standard error stream is a terminal, the progress is shown there; otherwise nowhere."""
    path = long_trace(tmp_path / "trace.jsonl", 20_000)
    code, said, shown = on_terminal(sys.executable, "-m", "lifecycle", "check", str(path))
    assert (code, said) == (0, "✓ 60,000 signals of 20,000 tasks: legal\n")
    assert "lines" in shown
    assert process("check", path).stderr == ""


def test_check_ends_if_the_reader_of_its_output_ends(tmp_path):
    """If the reader of its output ends, the command ends without a traceback."""
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


def test_default_table_is_that_of_tasks():
    """`verify` and `check` use the table of tasks if no other table is named."""
    assert properties() == properties(LIFECYCLE)


DEEP = 100_000


@pytest.mark.parametrize("depth", [500, 990, DEEP])
def test_deeply_nested_input_is_one_clear_error(cli, tmp_path, depth):
    """A trace's line or a map that is nested too deeply is one line of text, never a RecursionError."""
    nested = "[" * depth + "]" * depth
    path = tmp_path / "trace.jsonl"
    path.write_text('{"id": "a", "signal": "enqueued", "more": ' + nested + '}\n{"id": "a", "signal": "executing"}\n')
    code, said, complaint = cli("check", path)
    assert complaint == ""
    assert code == 0 or said.splitlines()[0] == "✗ line 1: nested too deeply"
    assert depth != DEEP or code == 1
    for name, text in ("map.json", '{"a": ' + nested + "}"), ("map.toml", "a = " + nested):
        (tmp_path / name).write_text(text)
        code, _, complaint = cli("check", path, "--map", tmp_path / name)
        assert (code, complaint.count("\n")) == (2, 1)
        assert complaint.startswith("error: the map")
