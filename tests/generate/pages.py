"""The generated parts of the pages: tables of states and transitions, schemas, help texts, pictures."""

import re
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import click
from generate import screens

from lifecycle import LIFECYCLE
from lifecycle.consumer.cli.main import commands
from lifecycle.consumer.cli.options import SUMMARIES
from lifecycle.consumer.demo.scenarios import SCENARIOS
from lifecycle.storage.postgres import schema as postgres_schema
from lifecycle.storage.sqlite import schema as sqlite_schema

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"
"""Programs that pages show: a folder for each page."""
WRITE = "python tests/generate"
WIDTH = 78
"""Columns of the help texts: in a terminal of 80, click leaves two free."""


def table(head, rows):
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def states():
    """Each state with its signal, its kind, and the actor of the next transition."""
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
    """The demo's scenarios and their promised signals."""
    return table(
        ("what happens", "signals"),
        [(scenario.title.replace("|", "\\|"), ", ".join(scenario.promised)) for scenario in SCENARIOS],
    )


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
    """Return the commands by name."""
    context = click.Context(commands)
    return {name: commands.get_command(context, name) for name in commands.list_commands(context)}


def command_overview():
    """Return a table of the commands, each with the first paragraph of its help."""
    return table(("command", "what it does"), [(f"[`{name}`](#{name})", text) for name, text in SUMMARIES.items()])


def command_help(name, command):
    """Return the help of a command as ``--help`` prints it in a terminal of 80 columns."""
    group = click.Context(commands, info_name="lifecycle", terminal_width=WIDTH, **commands.context_settings)
    return f"```text\n{click.Context(command, group, name).get_help()}\n```"


def example_folder(text):
    """Return the name of the folder in `docs/examples` whose files a page shows, or `None`."""
    found = re.search(r"^<!-- examples/(\w+)/", text, re.MULTILINE)
    return found[1] if found else None


def examples(page):
    """Return the files of an example that a page shows, by their markers: each begins with its name."""
    names = re.findall(r"^<!-- (examples/\w+/.+) -->$", page.read_text(), re.MULTILINE)
    return {name: f"```python\n# {name.split('/', 2)[2]}\n{(DOCS / name).read_text()}```" for name in names}


def generated():
    """For each page its generated parts, by the name of their markers."""
    return {page: examples(page) for page in sorted(DOCS.rglob("*.md")) if example_folder(page.read_text())} | {
        DOCS / "index.md": {"demo": f"```text\n{screens.text()}\n```"},
        DOCS / "background" / "lifecycle.md": {"transitions": transitions()},
        DOCS / "reference" / "signals.md": {"states": states(), "scenarios": scenarios()},
        DOCS / "stores" / "sqlite.md": {"schema": schema()},
        DOCS / "stores" / "postgres.md": {"schema": postgres_tables()},
        DOCS / "reference" / "cli.md": {"commands": command_overview()}
        | {name: command_help(name, command) for name, command in command_line().items()},
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
