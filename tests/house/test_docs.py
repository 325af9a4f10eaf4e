"""The documentation: examples run, generated parts match the code, commands and links exist, words are the glossary's.

``python tests/generate`` brings the generated parts up to date.
"""

import importlib
import json
import os
import re
import shlex
from contextlib import ExitStack, closing
from importlib.util import find_spec
from pathlib import Path

import pytest
from generate.pages import DOCS, ROOT, WRITE, command_line, filled, generated, states
from hypothesis import Phase
from support.doc_pages import PageRunner, blocks, commands
from support.postgres import temporary_database
from support.profiles import hypothesis_options
from support.redis_server import redis_store_url

import lifecycle
from lifecycle import LIFECYCLE
from lifecycle.consumer.cli.main import commands as main_commands
from lifecycle.consumer.demo.demo import next_steps
from lifecycle.consumer.health_server import HealthServer

DECISIONS = DOCS / "decisions"
PAGES = [ROOT / "README.md", *sorted(page for page in DOCS.rglob("*.md") if page.parent != DECISIONS)]
ALL_PAGES = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DECISIONS.glob("*.md"))]
"""With the pages that show no examples."""
POSTGRES_URL = "postgresql://app@db.example.com/shop"
"""The URL on the page on PostgreSQL."""
LIBRARIES = {"fastapi": ("fastapi", "uvicorn", "httpx"), "flask": ("flask", "httpx"), "django": ("django", "httpx")}
"""For a page the libraries of its example: the page is skipped where one is missing, except in CI."""
REDIS_URL = "redis://redis.example.com/0"
"""The URL on the page on Redis."""

RECIPE_LANGUAGES = ("ini", "dockerfile", "yaml")
"""Languages of the files of systemd, Docker and Kubernetes: see `test_recipes_use_options_and_paths_that_exist`."""

WORDS_TO_AVOID = re.compile(
    r"\b(call(ed|ing|s)? off|put(s|ting)? back|told|heard|hears?|bod(y|ies)|somebody|whoever|dismiss\w*|hired?|bury|buried)\b",
    re.IGNORECASE,
)
"""Words in place of which the glossary has a term."""

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
by_every_page = pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.name)


def prose(page):
    """Return a page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


# Examples ----------------------------------------------------------------------------------------------------------


@by_page
def test_examples_of_a_page_run(page, tmp_path, monkeypatch, request):
    """Every example of a page runs, and prints the output on the page: each page has its own database."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("LIFECYCLE_URL", raising=False)
    for library in LIBRARIES.get(page.stem, ()):
        if not os.environ.get("CI") and find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    urls, databases = {}, ExitStack()
    if POSTGRES_URL in page.read_text():
        urls[POSTGRES_URL] = databases.enter_context(temporary_database())
    if REDIS_URL in page.read_text():
        request.getfixturevalue("redis_url")
        urls[REDIS_URL] = redis_store_url()
    runner = PageRunner(page, tmp_path, urls)
    # An example that finds a fault finds it each time, however long the fault's steps are.
    same_each_time = hypothesis_options(
        derandomize=True, database=None, phases=[Phase.generate], report_multiple_bugs=False
    )
    with databases, closing(runner), same_each_time:
        for block in blocks(page):
            runner.run(block)


def test_pages_that_teach_have_examples():
    """The pages that teach have examples that run, and every block has a language that a test checks."""
    known = {"python", "pycon", "console", "sh", "sql", "text", "mermaid", *RECIPE_LANGUAGES}
    languages = {page.name: [block.language for block in blocks(page)] for page in PAGES}
    assert {language for found in languages.values() for language in found} <= known
    for page in PAGES:
        if page.parent.name == "howto":
            assert {"python", "pycon"} & set(languages[page.name]), page.name
    for name, least in {"README.md": 2, "signals.md": 10, "sqlite.md": 5, "from-huey.md": 3}.items():
        assert sum(language in ("python", "pycon") for language in languages[name]) >= least, name


def test_reference_has_each_public_name():
    """Each public name of the package has an entry in the API reference; signals are on a page of their own."""
    text = (DOCS / "reference" / "api.rst").read_text()
    names = [name for name in lifecycle.__all__ if not name.startswith("SIGNAL")]
    assert [name for name in names if not re.search(rf"^\.\. \w+:: ([\w.]+\.)?{name}$", text, re.MULTILINE)] == []


def test_page_of_errors_has_each_exception():
    """The page of errors has each exception of the package, and no other."""
    public = (getattr(lifecycle, name) for name in lifecycle.__all__)
    exceptions = {one.__name__ for one in public if isinstance(one, type) and issubclass(one, BaseException)}
    text = (DOCS / "reference" / "errors.md").read_text()
    assert set(re.findall(r"^\| `(\w+)`", text, re.MULTILINE)) | {"IllegalTransition"} == exceptions - {
        "LifecycleError"
    }
    assert "`LifecycleError`" in text
    assert "`IllegalTransition`" in text


# Commands ----------------------------------------------------------------------------------------------------------


def command_lines(page):
    """Return each `lifecycle` command on a page, in a block or in the text, as its words after the program's name."""
    texts = [block.text for block in blocks(page) if block.language == "console"]
    texts += [f"$ {line}" for block in blocks(page) if block.language == "sh" for line in block.text.splitlines()]
    texts += [f"$ {code}" for code in re.findall(r"`(lifecycle [^`\n]+)`", prose(page))]
    return [rest for text in texts for first, *rest in commands(text) if first == "lifecycle"]


def fault(words):
    """Return the fault of a call of the command line, or `None`."""
    known = command_line()
    if words[0] in {name for one in main_commands.params for name in one.opts}:
        return None
    if words[0] not in known:
        return f"there is no command lifecycle {words[0]}, only {', '.join(known)}"
    options = {"-h", "--help"} | {name for one in known[words[0]].params for name in one.opts if name.startswith("-")}
    for word in words[1:]:
        if word.startswith("-") and word.partition("=")[0] not in options:
            return f"lifecycle {words[0]} has no option {word}, only {', '.join(sorted(options))}"
    return None


@by_page
def test_commands_on_pages_exist(page):
    """Every `lifecycle` command on a page exists, and so do its options."""
    calls = [words for words in command_lines(page) if words != ["--help"]]
    assert calls or page.name not in ("README.md", "index.md", "running.md", "cli.md")
    assert [found for words in calls if (found := fault(words))] == []


def test_unknown_command_on_a_page_is_found():
    """A command or an option that does not exist is a fault."""
    assert "no command lifecycle rum" in fault(["rum", "tasks:queue"])
    assert "no option --wrokers" in fault(["run", "tasks:queue", "--wrokers", "2"])
    assert fault(["run", "tasks:queue", "--workers=2", "-k", "thread"]) is None


def test_recipes_use_options_and_paths_that_exist():
    """The recipes start consumers with options that exist, ask for paths that exist, and allow for the grace period."""
    unit, image, compose, probes = (
        block.text for block in blocks(DOCS / "operate" / "running.md") if block.language in RECIPE_LANGUAGES
    )
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


def test_readme_says_what_it_is_and_runs_something_at_once():
    """The README says in its first seven lines what this is, and has a command within ten; the demo names a heading of it."""
    page = ROOT / "README.md"
    first = page.read_text().splitlines()[:10]
    assert len(" ".join(first[1:7]).split()) > 60
    assert any(re.match("python3 -m venv .*lifecycle demo$", line) for line in first)
    (place,) = [purpose for _, purpose in next_steps(None, "lifecycle") if "README.md, " in purpose]
    assert place.partition("README.md, ")[2].lower().replace(" ", "-") in anchors(page)


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", DOCS / "background" / "comparison.md"], ids=lambda page: page.name
)
def test_comparison_says_what_is_missing_here(page):
    """In the tables beside other queues, "not yet" stands where this queue has no such thing, and nowhere else."""
    has = {
        "periodic tasks": hasattr(lifecycle.TaskQueue, "periodic_task"),
        "chains and groups": hasattr(lifecycle, "group"),
        "web page for operators": hasattr(lifecycle.TaskQueue, "dashboard"),
    }
    missing = set()
    for head, row in re.findall(
        r"^\| \| (.*) \|\n\|[-|]+\n\| \*\*Lifecycle\*\* \| (.*) \|$", page.read_text(), re.MULTILINE
    ):
        cells = dict(zip(head.split(" | "), row.split(" | "), strict=True))
        missing |= {name for name, cell in cells.items() if cell == "not yet"}
        assert {name for name in has.keys() & cells.keys() if not has[name]} == {*cells} & missing
    assert missing <= has.keys()


def test_start_page_and_readme_have_the_same_first_command():
    """The start page begins with the README's command for the demo."""
    index = [block for block in blocks(DOCS / "index.md") if block.language == "sh"]
    readme = [block for block in blocks(ROOT / "README.md") if block.language == "sh"]
    assert index[0].text == readme[0].text
    assert command_lines(DOCS / "index.md")[0] == ["demo"]


# Links -------------------------------------------------------------------------------------------------------------


def anchors(page):
    """Yield the anchors of a page's headings, as code hosts make them."""
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower())
        yield plain.replace(" ", "-")


@by_every_page
def test_links_have_a_target(page):
    """Every link within the documentation leads to a file, and to a heading in the file."""
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)) if not re.match(r"https?://", link)]
    for link in links:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}, which has no such heading"


# Generated parts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", generated(), ids=lambda page: page.name)
def test_generated_parts_are_up_to_date(page):
    """The tables and help texts on a page are, byte for byte, those that the code generates."""
    text = page.read_text()
    assert text == filled(page, text, generated()[page]), f"{page.name} is out of date: run {WRITE}"


def test_every_marker_has_a_generator():
    """Each marker of a generated part has a generator, and each generator has a marker."""
    for page in PAGES:
        assert set(re.findall(r"<!-- /(.+?) -->", page.read_text())) == set(generated().get(page, {})), page.name


def test_table_of_states_names_constants_of_the_package():
    """The constants in the table of states are names of the package, and each has its state's signal."""
    package = importlib.import_module("lifecycle")
    for state, constant in re.findall(r"^\| `([\w-]+)` \| `(SIGNAL_\w+)`", states(), re.MULTILINE):
        assert getattr(package, constant) == LIFECYCLE.state(state).signal


# Words and the map of packages -------------------------------------------------------------------------------------


@by_every_page
def test_prose_uses_the_words_of_the_glossary(page):
    """No sentence uses a word in place of which the glossary has a term."""
    written = re.sub(r"^<!-- ([\w: -]+) -->$.*?^<!-- (/|end of).*?$", "", prose(page), flags=re.MULTILINE | re.DOTALL)
    written = re.sub(r"`[^`]*`", "", written)
    assert [found[0] for found in WORDS_TO_AVOID.finditer(written)] == []


def test_map_of_packages_is_complete():
    """The map in CONTRIBUTING.md has each package below `lifecycle`, and no other."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    packages = {f"lifecycle.{folder.parent.name}" for folder in Path(lifecycle.__file__).parent.glob("*/__init__.py")}
    assert set(re.findall(r"^\| `(lifecycle\.\w+)`", text, re.MULTILINE)) == packages
