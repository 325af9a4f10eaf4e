"""``lifecycle diagram``: its output and its errors."""

import re
import sys
from contextlib import closing

import pytest

from lifecycle import LIFECYCLE, TaskQueue
from lifecycle.consumer.cli.main import main
from lifecycle.consumer.demo.gallery import PICTURES, draw, formats

TABLE = """
from lifecycle import Lifecycle, State, Transition, Kind
draft = State("draft", "drafted", Kind.WAITING, "its author")
sent = State("sent", "sent", Kind.FINAL, "nobody")
LETTERS = Lifecycle([draft, sent], [
    Transition("write", None, draft, "it is written"),
    Transition("send", draft, sent, "it is sent"),
])
"""


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys):
    """Run `lifecycle diagram` in this process; return exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIFECYCLE_URL", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["lifecycle", "diagram", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, *capsys.readouterr()

    yield run
    sys.modules.pop("letters", None)


@pytest.fixture
def task(tmp_path):
    """The id of a task that failed once and then completed, and the URL of its store."""
    with closing(TaskQueue(f"sqlite:///{tmp_path}/app.db")) as queue:
        attempts = iter([ValueError("not yet"), None])

        @queue.task(retries=1)
        def flaky():
            if (error := next(attempts)) is not None:
                raise error

        result = flaky()
        while queue.run_next():
            pass
        assert result.state == "complete"
    return result.id, f"sqlite:///{tmp_path}/app.db"


@pytest.mark.untraced
@pytest.mark.parametrize("name", PICTURES)
def test_each_picture_is_printed_in_each_format(cli, name):
    """Each picture is printed as it is committed, in every format that can show it."""
    picture = PICTURES[name]()
    for form in formats(picture):
        assert cli(name, "--format", form) == (0, draw(picture, form), "")
    assert cli(name) == (0, draw(picture, "mermaid"), "")


def test_prints_the_lifecycle_without_a_name(cli):
    """Without a name it prints the lifecycle."""
    assert cli("-f", "svg")[1] == draw(PICTURES["lifecycle"](), "svg")


def test_list_prints_the_names_of_the_pictures(cli):
    """`--list` prints the names."""
    assert cli("--list") == (0, "".join(f"{name}\n" for name in PICTURES), "")


@pytest.mark.parametrize("form", ["mermaid", "dot", "svg"])
def test_task_id_draws_the_path_of_the_task(cli, task, form):
    """With the id of a task it draws the task's path, its steps numbered in order."""
    task_id, url = task
    code, out, err = cli(task_id, "--url", url, "-f", form)
    assert (code, err) == (0, "")
    assert task_id in out
    assert "queued → executing → error → retrying → queued → executing → complete" in out
    assert sorted(re.findall(r"\b(\d): \+\d+\.\d\d s", out)) == ["1", "2", "3", "4", "5", "6", "7"]


@pytest.mark.parametrize("form", ["mermaid", "dot", "svg"])
def test_output_option_writes_a_file_in_the_format_of_its_name(cli, task, tmp_path, form):
    """With `-o` the picture is written into a file, in the format that the ending of its name says, or in another."""
    task_id, url = task
    assert cli(task_id, "--url", url, "-o", f"task.{form}") == (0, "", "")
    assert (tmp_path / f"task.{form}").read_text() == cli(task_id, "--url", url, "-f", form)[1]
    assert cli(task_id, "--url", url, "-o", "task", "-f", form) == (0, "", "")
    assert (tmp_path / "task").read_text() == (tmp_path / f"task.{form}").read_text()


def test_table_option_draws_a_table_of_the_user(cli, tmp_path):
    """With `--table` it draws a table of the user's own."""
    (tmp_path / "letters.py").write_text(TABLE)
    code, out, err = cli("--table", "letters:LETTERS")
    assert (code, err) == (0, "")
    assert '-->|"send"| sent' in out
    assert not any(state.name in out for state in LIFECYCLE.states)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nope",), "'nope' is no picture (lifecycle diagram --list), and there is no file lifecycle.db"),
        (
            ("nope", "--url", "sqlite:///app.db"),
            "'nope' is no picture (lifecycle diagram --list), and there is no task",
        ),
        (("nope", "nothing:queue"), "there is no module 'nothing'"),
        (("-o", "task.png"), "no format 'png': there are mermaid, dot, svg, svg-narrow"),
        (("-o", "not/there.svg"), "not/there.svg cannot be written: No such file"),
        (("-f", "png"), "no format 'png': there are mermaid, dot, svg, svg-narrow"),
        (("storage", "-f", "dot"), "dot cannot show a sequence"),
        (("--table", "nothing"), "there is no module 'nothing'"),
        (("storage", "--table", "nothing"), "give --table or storage, not both"),
    ],
)
def test_unknown_names_are_one_line_and_exit_code_2(cli, task, arguments, message):
    """For an unknown picture, task, table or format: one line that names what exists, and exit code 2."""
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.fixture
def workflow(tmp_path):
    """The ids of the tasks of a pipeline that is half-way through, and the URL of its store."""
    with closing(TaskQueue(f"sqlite:///{tmp_path}/flow.db")) as queue:
        add = queue.task(name="add")(lambda a, b: a + b)
        results = queue.enqueue(add.s(1, 2) | add.s(3) | add.s(4))
        queue.run_next()
    return [result.id for result in results], f"sqlite:///{tmp_path}/flow.db"


@pytest.mark.parametrize("place", range(3))
def test_workflow_is_drawn_from_any_of_its_tasks(cli, workflow, place):
    """`--workflow` with the end of the id of any task prints the whole workflow, each task with its state."""
    ids, url = workflow
    code, out, err = cli("--workflow", ids[place][-10:], "--url", url)
    assert (code, err) == (0, "")
    assert re.findall(r'"add: (.*)"', out) == ["complete", "pending", "pending"]
    assert re.findall(r"(t\d) --> (t\d)", out) == [("t0", "t1"), ("t1", "t2")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--table", "letters:LETTERS"], "give --workflow or --table, not both"),
        (["lifecycle", "tasks:queue"], "give --workflow or lifecycle, not both"),
        (["-f", "svg-narrow"], "svg-narrow cannot show a workflow: draw .* as mermaid or dot or svg"),
    ],
)
def test_what_does_not_go_with_a_workflow_is_refused(cli, workflow, arguments, message):
    """`--workflow` with a table, with a picture's name or in a narrow format is refused; the error names what it is."""
    ids, url = workflow
    code, out, err = cli("--workflow", ids[0], "--url", url, *arguments)
    assert (code, out) == (2, "")
    assert re.search(message, err)


def test_workflow_of_an_unknown_task_is_refused(cli, workflow):
    """`--workflow` with an id that no task has is refused with that id."""
    code, _, err = cli("--workflow", "nonsense", "--url", workflow[1])
    assert code == 2
    assert "nonsense" in err
