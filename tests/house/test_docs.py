"""The documentation: its examples run, its generated parts are what the code says, its commands and links are there.

``python tests/generate`` brings the generated parts up to date.
"""

import doctest
import importlib
import json
import re
import shlex
import signal
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import pytest
from generate.pages import DOCS, ROOT, WRITE, command_line, filled, generated, states
from hypothesis import Phase
from support.profiles import hypothesis_options
from support.redis_server import told_redis

from lifecycle import LIFECYCLE, TaskQueue
from lifecycle.consumer.demo.demo import SCENARIOS
from lifecycle.consumer.health_server import HealthServer

PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
SHOP = "postgresql://app@db.example.com/shop"
"""The database of the page on PostgreSQL."""
RENTED = "redis://redis.example.com/0"
"""The server of the page on Redis."""
PATIENCE = 60.0
"""Seconds that a consumer has to stop, on a machine that is busy."""

RECIPES = ("ini", "dockerfile", "yaml")
"""Languages of what other programs read: see `test_recipes_use_options_and_paths_that_exist`."""

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str
    line: int
    """The number of its first line in the page."""


def blocks(page):
    """The fenced blocks of a page, in order."""
    text = page.read_text()
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Block(found[1], found[2], text[: found.start(2)].count("\n") + 1)


def prose(page):
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


# Examples ----------------------------------------------------------------------------------------------------------


class Reader:
    """Does in a folder of its own what a page shows, one block after the other, in one namespace."""

    def __init__(self, page, folder, places):
        """`places`: URLs on the page, and where they lead."""
        self.page, self.folder, self.places = page, folder, places
        self.names = {"__name__": "tasks"}
        self.files = set()
        self.exits = ExitStack()

    def do(self, block):
        """What the page shows there."""
        for shown, meant in self.places.items():
            block = block._replace(text=block.text.replace(shown, meant))
        if block.language == "python":
            named = re.match(r"# (\w+)\.py\n", block.text)
            if named:
                self.write(named[1], block.text)
            else:
                code = compile("\n" * (block.line - 1) + block.text, self.page, "exec")  # its lines are the page's
                exec(code, self.names)  # noqa: S102 -- the page is ours
        elif block.language == "pycon":
            self.talk(block)
        elif block.language == "console":
            for words in commands(block.text):
                self.consume(words)

    def write(self, name, text):
        """Save and import a file whose name is the first line of its text."""
        (self.folder / f"{name}.py").write_text(text)
        self.files.add(name)
        sys.modules.pop(name, None)
        self.exits.callback(sys.modules.pop, name, None)
        module = importlib.import_module(name)
        self.names |= {key: value for key, value in vars(module).items() if not key.startswith("__")}
        self.exits.callback(close_queues, vars(module))

    def talk(self, block):
        """Type what is typed, and compare the answers."""
        example = doctest.DocTestParser().get_doctest(
            block.text, self.names, self.page.name, str(self.page), block.line - 1
        )
        said = []
        failed, _ = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.append, clear_globs=False)
        self.names.update(example.globs)
        assert not failed, "".join(said)

    def consume(self, words):
        """Start the consumer that a console starts, if it is one of tasks that the page has written down."""
        if words[:2] != ["lifecycle", "run"] or words[2].partition(":")[0] not in self.files:
            return
        consumer = subprocess.Popen([sys.executable, "-m", "lifecycle", *words[1:]], cwd=self.folder)
        self.exits.callback(dismiss, consumer)

    def close(self):
        close_queues(self.names)
        self.exits.close()


def close_queues(names):
    for value in list(names.values()):
        if isinstance(value, TaskQueue):
            value.close()


def dismiss(consumer):
    consumer.send_signal(signal.SIGTERM)
    assert consumer.wait(PATIENCE) == 0


@by_page
def test_every_example_of_a_page_runs(page, tmp_path, monkeypatch, request):
    """Every example of a page runs, and prints what the page says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("LIFECYCLE_URL", raising=False)
    places = {}
    if SHOP in page.read_text():
        places[SHOP] = request.getfixturevalue("postgres")
    if RENTED in page.read_text():
        request.getfixturevalue("redis_url")
        places[RENTED] = told_redis()
    reader = Reader(page, tmp_path, places)
    # What a page says Hypothesis finds, it finds: it is not a matter of luck, nor of how short an example is.
    surely = hypothesis_options(
        max_examples=2000, derandomize=True, database=None, phases=[Phase.generate], report_multiple_bugs=False
    )
    with closing(reader), surely:
        for block in blocks(page):
            reader.do(block)


def test_pages_that_teach_have_examples():
    """Pages that teach have examples that run, and each block has a language that a test checks."""
    known = {"python", "pycon", "console", "sh", "sql", "text", "mermaid", *RECIPES}
    languages = {page.name: [block.language for block in blocks(page)] for page in PAGES}
    assert {language for found in languages.values() for language in found} <= known
    for name, least in {"README.md": 2, "guide.md": 30, "signals.md": 10, "sqlite.md": 5, "huey.md": 3}.items():
        assert sum(language in ("python", "pycon") for language in languages[name]) >= least, name


# Commands ----------------------------------------------------------------------------------------------------------


def commands(text):
    """The commands that a console block types, each as its words, the program's name without its folder."""
    for line in text.splitlines():
        for part in re.split(r"&&|\|", line.removeprefix("$ ")) if line.startswith("$ ") else ():
            first, *rest = shlex.split(part, comments=True)
            yield [first.rpartition("/")[2], *rest]


def typed(page):
    """Every call of our command line on a page, in a block or in the text, as its words after the program's name."""
    texts = [block.text for block in blocks(page) if block.language == "console"]
    texts += [f"$ {line}" for block in blocks(page) if block.language == "sh" for line in block.text.splitlines()]
    texts += [f"$ {code}" for code in re.findall(r"`(lifecycle [^`\n]+)`", prose(page))]
    return [rest for text in texts for first, *rest in commands(text) if first == "lifecycle"]


def fault(words):
    """What is wrong with a call of the command line, if anything."""
    known = command_line()
    if words[0] not in known:
        return f"there is no command lifecycle {words[0]}, only {', '.join(known)}"
    options = {"-h", "--help"} | {name for one in known[words[0]].params for name in one.opts if name.startswith("-")}
    for word in words[1:]:
        if word.startswith("-") and word.partition("=")[0] not in options:
            return f"lifecycle {words[0]} has no option {word}, only {', '.join(sorted(options))}"
    return None


@by_page
def test_commands_on_pages_exist(page):
    """Every `lifecycle` command that a page types exists, and so do its options."""
    calls = [words for words in typed(page) if words != ["--help"]]
    assert calls or page.name not in ("README.md", "index.md", "guide.md", "cli.md")
    assert [found for words in calls if (found := fault(words))] == []


def test_unknown_command_on_a_page_is_noticed():
    """A command or an option that does not exist is noticed on a page."""
    assert "no command lifecycle rum" in fault(["rum", "tasks:queue"])
    assert "no option --wrokers" in fault(["run", "tasks:queue", "--wrokers", "2"])
    assert fault(["run", "tasks:queue", "--workers=2", "-k", "thread"]) is None


def test_recipes_use_options_and_paths_that_exist():
    """The recipes start consumers with options that exist, ask for paths that exist, and leave time for the grace period."""
    unit, image, compose, probes = (block.text for block in blocks(DOCS / "running.md") if block.language in RECIPES)
    start = shlex.split(re.search("^ExecStart=(.*)$", unit, re.MULTILINE)[1])
    base = json.loads(re.search("^ENTRYPOINT (.*)$", image, re.MULTILINE)[1])
    others = [
        json.loads(words) for words in re.findall(r"^(?:CMD|    command:) (\[.*\])$", image + compose, re.MULTILINE)
    ]
    calls = [start, *(base + words for words in others)]
    assert len(calls) == 3
    assert {Path(first).name for first, *_ in calls} == {"lifecycle"}
    assert [found for _, *words in calls if (found := fault(words))] == []
    paths = re.findall(r"path: (/\w+)", probes) + re.findall(r"8080(/\w+)", compose)
    with closing(HealthServer(("127.0.0.1", 0))) as port:
        assert paths == ["/ready", "/live", "/live"]
        assert all(port.answer(path)[0] in (200, 503) for path in paths)
    for text, words in (unit, start), (compose, others[1]):
        seconds = re.search(r"^(?:TimeoutStopSec=|    stop_grace_period: )(\d+)", text, re.MULTILINE)[1]
        assert int(seconds) > int(words[words.index("--grace") + 1])


def test_start_page_begins_with_the_readme_s_demo_command():
    """The start page begins with the command that the README gives for the demo."""
    index = [block for block in blocks(DOCS / "index.md") if block.language == "sh"]
    readme = [block for block in blocks(ROOT / "README.md") if block.language == "sh"]
    assert index[0].text == readme[0].text
    assert typed(DOCS / "index.md")[0] == ["demo"]


def test_start_page_shows_scenarios_of_the_demo():
    """The start page shows scenarios of the demo, in order, each with the signals promised for it."""
    shown = next(block.text for block in blocks(DOCS / "index.md") if block.language == "text")
    promised = {scenario.title: scenario.promised for scenario in SCENARIOS}
    scenarios = re.findall(r"^(\S.*)\n((?:  +\d+\.\d\d s  \w{6}  \S+\n)+)  ✓ as promised$", shown, re.MULTILINE)
    titles = [title for title, _ in scenarios]
    assert len(titles) > 4
    assert titles == [title for title in promised if title in titles]
    for title, lines in scenarios:
        assert tuple(line.split()[-1] for line in lines.splitlines()) == promised[title], title
    count = sum(map(len, promised.values()))
    assert f"✓ {len(promised)} scenarios, {count} signals:" in shown


# Links -------------------------------------------------------------------------------------------------------------


def anchors(page):
    """The anchors of a page's headings, as code hosts make them."""
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower())
        yield plain.replace(" ", "-")


@by_page
def test_links_within_the_documentation_lead_somewhere(page):
    """Every link within the documentation leads somewhere."""
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)) if not re.match(r"https?://", link)]
    for link in links:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}, which has no such heading"


# Generated parts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", generated(), ids=lambda page: page.name)
def test_generated_parts_are_up_to_date(page):
    """The tables and help texts on a page are, byte for byte, what the code says."""
    text = page.read_text()
    assert text == filled(page, text, generated()[page]), f"{page.name} is out of date: run {WRITE}"


def test_every_marker_on_a_page_is_filled():
    """Each marker on a page belongs to a part that is generated."""
    for page in PAGES:
        assert set(re.findall(r"<!-- /(.+?) -->", page.read_text())) == set(generated().get(page, {})), page.name


def test_table_of_states_names_constants_of_the_package():
    """The constants in the table of states are names of the package, and each has its state's signal."""
    names = vars(importlib.import_module("lifecycle"))
    for state, constant in re.findall(r"^\| `([\w-]+)` \| `(SIGNAL_\w+)`", states(), re.MULTILINE):
        assert names[constant] == LIFECYCLE.state(state).signal
