"""The commands about the law: `verify` and `check`, to people and to programs."""

import json
import os
import pty
import re
import subprocess
import sys
import threading
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import LAW, patient

from consumer.cli import main
from lifecycle import LIFECYCLE, FaultyTable, Kind, Lifecycle, State, Transition
from lifecycle.language import count, readable, sequences
from lifecycle.properties import properties
from lifecycle.testing import check, legal_histories, lifecycles

OWN = """
from lifecycle import Kind, Lifecycle, State, Transition
open_, shut = State("open", "opened", Kind.WAITING, "anybody"), State("shut", "closed", Kind.FINAL, "nobody")
TABLE = Lifecycle([open_, shut], [Transition("make", None, open_, "it is"), Transition("close", open_, shut, "it can")])
number = 5
"""
FAULTY = """
from lifecycle import Kind, Lifecycle, State, Transition
a, b, c = (State(name, name, kind, "x") for name, kind in (("a", Kind.WAITING), ("b", Kind.FINAL), ("c", Kind.WAITING)))
TABLE = Lifecycle([a, b, c], [Transition("make", None, a, ""), Transition("end", a, b, ""), Transition("undo", b, a, "")])
"""


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys):
    """Gives a command in this process: its exit code, and what it wrote to stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "faulty.py").write_text(FAULTY)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["lifecycle", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, *capsys.readouterr()

    yield run
    for name in ("own", "faulty"):
        sys.modules.pop(name, None)


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
        [sys.executable, "-m", "consumer", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False,
        **options,
    )  # fmt: skip


# Properties --------------------------------------------------------------------------------------------------------


@patient
@given(lifecycles())
def test_what_can_be_built_keeps_all_promises(table):
    """For any table that could be built every property holds."""
    assert [one for one in properties(table) if not one.holds] == []
    assert len(properties(table)) == 7


def unchecked(states, rows):
    """A table as if nobody had looked at it."""
    table = object.__new__(Lifecycle)
    table.states, table.transitions = tuple(states), tuple(rows)
    table._by_name = {state.name: state for state in states}
    table._rows = {name: {} for name in (None, *table._by_name)}
    table._walks = {}
    for row in rows:
        table._rows[row.source and row.source.name][row.trigger] = row.target
    return table


def test_each_property_can_fail():
    """Each property is computed from what the table answers: of a table with that fault, it alone names it."""
    a, b = (State(name, name, Kind.WAITING, "x") for name in "ab")
    end, twin = State("end", "end", Kind.FINAL, "x"), State("twin", "end", Kind.FINAL, "x")
    new, on, off = Transition("make", None, a, ""), Transition("go", a, b, ""), Transition("stop", b, end, "")
    cases = {
        "every state can be reached": ([a, b, end], [new, Transition("go", a, end, ""), off], ("b",)),
        "no state is a trap": ([a, b, end], [new, on, Transition("stop", a, end, "")], ("b",)),
        "an end can be reached": ([a, b], [new, on, Transition("back", b, a, "")], ("a", "b")),
        "final states have no way out": ([a, b, end], [new, on, off, Transition("undo", end, b, "")], ("end",)),
        "each state and trigger have one": ([a, b, end], [new, on, off, Transition("go", a, b, "")], ("go from a",)),
        "tasks are created in one": ([a, b, end], [new, on, off, Transition("copy", None, b, "")], ("a", "b")),
        "each signal is that of one": ([a, b, end, twin], [new, on, off, Transition("s", a, twin, "")], ("end",)),
    }
    assert [property_.holds for property_ in properties(unchecked([a, b, end], [new, on, off]))] == [True] * 7
    for place, (claim, (states, rows, faults)) in enumerate(cases.items()):
        found = properties(unchecked(states, rows))
        assert found[place].claim.startswith(claim)
        assert found[place].faults == faults
        with pytest.raises(FaultyTable):
            Lifecycle(states, rows)
    nobody = properties(unchecked([a, b, end], [on, off]))
    assert nobody[5].faults == ("(none)",)
    assert nobody[0].faults == ("a", "b", "end")


# verify ------------------------------------------------------------------------------------------------------------


def test_verify(cli):
    """It says what holds, and prints the language: automaton, expression, and how many sequences there are."""
    code, said, err = cli("verify")
    assert (code, err) == (0, "")
    assert said.startswith("lifecycle.LIFECYCLE: 13 states, 25 rows\n")
    assert said.count("✓") == 8
    assert "✗" not in said
    for name, line in readable().items():
        assert f"{name} = {line}" in said
    assert re.search(r"^ +8 signals +400 *$", said, re.MULTILINE)
    assert f"in all {sum(count(length=8)):>17,}" in said
    assert "error | timeout | locked | rate-limited | canceled → 5" in said


def test_verify_list(cli):
    """On demand it prints each legal sequence up to the length that was given."""
    code, said, _ = cli("verify", "--length", "3", "--list")
    assert code == 0
    listed = said.split("Each of them\n")[1].splitlines()
    assert [tuple(line.split()) for line in listed] == list(sequences(length=3))
    assert all(check(line.split()) == len(line.split()) for line in listed)


def test_verify_counts_what_it_cannot_list(cli):
    """Long sequences are counted, and not walked one by one."""
    code, said, _ = cli("verify", "-n", "60")
    assert code == 0
    assert said.count("✓") == 7
    assert f"{count(length=60)[-1]:,}" in said


def test_verify_json(cli):
    """Programs get the same."""
    code, said, _ = cli("verify", "--json", "--length", "4", "--list")
    report = json.loads(said)
    assert code == 0
    assert report["states"] == list(LAW)
    assert all(one["holds"] and one["faults"] == [] for one in report["properties"])
    assert report["counts"] == count(length=4)
    assert [tuple(one) for one in report["sequences"]] == list(sequences(length=4))
    assert re.fullmatch(report["expression"], "enqueued executing complete ")
    assert {name for one in report["automaton"] for name in one["members"]} == set(LAW)
    assert report["readable"] == readable()
    assert "sequences" not in json.loads(cli("verify", "--json")[1])


def test_verify_another_table(cli):
    """A table of one's own is verified alike; the attribute's name may be left out."""
    for target in ("own:TABLE", "own"):
        code, said, _ = cli("verify", target)
        assert code == 0
        assert said.startswith(f"{target}: 2 states, 2 rows\n")
        assert "LIFE = opened closed" in said


def test_verify_a_faulty_table(cli):
    """A table that cannot be built is told in one line, with each fault and the place; that is what was found wrong."""
    code, said, err = cli("verify", "faulty:TABLE")
    assert (code, said) == (1, "")
    assert err.count("\n") == 1
    assert err.startswith("error: 'faulty' cannot be imported: FaultyTable: no lifecycle: ")
    for fault in ("c cannot be reached", "b is final but leads to a", "c is a trap"):
        assert fault in err
    assert "faulty.py, line 4)" in err


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nowhere:TABLE", "there is no module 'nowhere'"),
        ("own:TABEL", "'own' has no 'TABEL'; did you mean TABLE?"),
        ("own:number", "own:number is a int, not a Lifecycle; did you mean TABLE?"),
        ("own table", "'own table' does not name a table: write module:attribute, as in module:TABLE"),
    ],
)
def test_verify_no_table(cli, target, said):
    """What names no table is bad usage, for both commands."""
    for command in (("verify", target), ("check", "--table", target, os.devnull)):
        code, out, err = cli(*command)
        assert (code, out) == (2, "")
        assert said in err
        assert err.count("\n") == 1


def test_verify_length(cli):
    """A length below one is bad usage."""
    assert cli("verify", "--length", "0")[0] == 2


def test_verify_names_what_does_not_hold(cli, monkeypatch):
    """If something did not hold it would be named, with exit code 1."""
    fault = properties()[0].__class__("every state can be reached", ("error",))
    monkeypatch.setattr("consumer.cli_law.properties", lambda _: [fault])
    monkeypatch.setattr("consumer.cli_law.sequences", lambda *_: iter([("enqueued",)]))
    code, said, _ = cli("verify", "--length", "2")
    assert code == 1
    assert "✗ every state can be reached: error\n" in said
    assert "as were counted: 1 instead of 5\n" in said
    assert json.loads(cli("verify", "--json")[1])["properties"][0]["faults"] == ["error"]


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
    monkeypatch.setattr("lifecycle.checking.REMEMBERED", 500)

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
    code, said, shown = on_terminal(sys.executable, "-m", "consumer", "check", str(path))
    assert (code, said) == (0, "✓ 60,000 signals of 20,000 tasks: legal\n")
    assert "lines" in shown
    assert process("check", path).stderr == ""


def test_reader_that_has_seen_enough(tmp_path):
    """If the reader of its output goes away it ends, without a traceback."""
    path = trace(tmp_path / "trace.jsonl", [(f"task-{number}", "complete") for number in range(20_000)])
    for options in ((), ("--json",)):
        with subprocess.Popen(
            [sys.executable, "-m", "consumer", "check", str(path), *options],
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
