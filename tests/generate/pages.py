"""The generated parts of the pages: tables of states and transitions, schemas, help texts, pictures."""

import inspect
import re
import sqlite3
import sys
import textwrap
from contextlib import closing
from pathlib import Path

import typer

from lifecycle import LIFECYCLE
from lifecycle.consumer.cli.main import app
from lifecycle.consumer.demo.demo import SCENARIOS
from lifecycle.consumer.demo.gallery import PICTURES, draw
from lifecycle.storage.postgres import schema as postgres_schema
from lifecycle.storage.sqlite import schema as sqlite_schema

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
WRITE = "python tests/generate"
WIDTH = 100


def table(head, rows):
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def states():
    """Each state, its signal, its kind, and who moves a task on from it."""
    return table(
        ("state", "its signal", "kind", "who moves it on"),
        [
            (
                f"`{state.name}`",
                f"`SIGNAL_{state.signal.upper().replace('-', '_')}`",
                f"{state.kind}{' (initial)' * (state is LIFECYCLE.initial)}",
                state.moved_by,
            )
            for state in LIFECYCLE.states
        ],
    )


def transitions():
    """Each row of the table."""
    return table(
        ("trigger", "from", "to", "why"),
        [
            (f"`{trigger}`", f"`{source.name}`" if source is not None else "(new)", f"`{target.name}`", why)
            for trigger, source, target, why in LIFECYCLE.transitions
        ],
    )


def scenarios():
    """What the demo does, and the signals that it holds against the table."""
    return table(
        ("what happens", "signals"),
        [(scenario.title.replace("|", "\\|"), ", ".join(scenario.promised)) for scenario in SCENARIOS],
    )


def picture(name):
    """A picture, for code hosts and the site to draw."""
    return f"```mermaid\n{draw(PICTURES[name](), 'mermaid')}```"


def schema():
    """The tables of an empty file."""
    with closing(sqlite3.connect(":memory:")) as db:
        sqlite_schema.migrate(db, 0)
        made = db.execute(
            "select sql from sqlite_master where type = 'table' and name not like 'sqlite%' order by rowid"
        ).fetchall()
    return "```sql\n" + "\n\n".join(f"{sql};" for (sql,) in made) + "\n```"


def postgres_tables():
    """The tables of the first schema, and what it grew since."""
    scripts = [
        postgres_schema.migration(number, "lifecycle") for number in range(1, len(postgres_schema.MIGRATIONS) + 1)
    ]
    made = [
        part
        for script in scripts
        for part in re.findall(r"^(?:create|alter) table .*?;$", script, re.MULTILINE | re.DOTALL)
    ]
    return "```sql\n" + "\n\n".join(made).replace('"lifecycle"', "lifecycle") + "\n```"


def command_line():
    """The commands, by name, as typer builds them."""
    line = typer.main.get_command(app)
    return {name: line.get_command(None, name) for name in line.list_commands(None)}


def overview():
    """The commands, each with the first line of its help."""
    found = command_line().items()
    return table(
        ("command", "what it does"), [(f"[`{name}`](#{name})", paragraphs(one.help)[0]) for name, one in found]
    )


def paragraphs(text):
    return [" ".join(part.split()) for part in inspect.cleandoc(text).split("\n\n")]


def help_of(name, command):
    """The words of a command's ``--help``, laid out here: how typer draws them changes from release to release."""
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    entries = [(one.metavar, one.help + " [required]" * one.required) for one in arguments]
    for option in command.params:
        if option.param_type_name == "option":
            left = ", ".join(sorted(option.opts, key=len))
            left = left if left.startswith("-") and not left.startswith("--") else f"    {left}"
            left += "" if option.is_flag else " " + max(option.opts, key=len).lstrip("-").upper().replace("-", "_")
            default = "" if option.is_flag or option.default is None else f" [default: {option.default}]"
            entries.append((left, option.help + default))
    column = max(len(left) for left, _ in entries) + 4
    lines = [f"lifecycle {name} [OPTIONS] {' '.join(one.metavar for one in arguments)}".rstrip(), ""]
    for paragraph in paragraphs(command.help):
        lines += [*textwrap.wrap(paragraph, WIDTH), ""]
    for left, right in entries:
        first = f"  {left}".ljust(column)
        lines += textwrap.wrap(right, WIDTH, initial_indent=first, subsequent_indent=" " * column)
    return "\n".join(["```text", *lines, "```"])


def generated():
    """For each page its generated parts, by the name of their markers."""
    return {
        ROOT / "README.md": {"lifecycle": picture("lifecycle")},
        DOCS / "lifecycle.md": {"transitions": transitions()},
        DOCS / "signals.md": {"states": states(), "scenarios": scenarios()},
        DOCS / "sqlite.md": {"schema": schema()},
        DOCS / "postgres.md": {"schema": postgres_tables()},
        DOCS / "cli.md": {"commands": overview()}
        | {name: help_of(name, command) for name, command in command_line().items()},
    }


def filled(page, text, parts):
    """The text of a page with its generated parts as they are to be."""
    for name, part in parts.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        assert text.count(begin) == text.count(end) == 1, f"{page.name}: say where {begin} … {end} belongs"
        head, rest = text.split(begin)
        text = f"{head}{begin}\n\n{part}\n\n{end}{rest.split(end)[1]}"
    return text


def write():
    """Bring the generated parts of all pages up to date."""
    for page, parts in generated().items():
        text = page.read_text()
        new = filled(page, text, parts)
        if new != text:
            page.write_text(new)
            sys.stdout.write(f"{page.relative_to(ROOT)} written\n")
