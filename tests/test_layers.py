"""The shape of the code, read from its text: layers, adapters, the clock, docstrings, sizes, where the law stands."""

import ast
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
from strategies import LAW, MOVES

pytestmark = pytest.mark.untraced

LAYERS = """
lifecycle.errors  lifecycle.machine
lifecycle.table   lifecycle.clock
lifecycle.properties  lifecycle.virtual
lifecycle.task    lifecycle.moments  lifecycle.guard  lifecycle.heartbeat  lifecycle.serializer
lifecycle.checking  lifecycle.regular  lifecycle.recording
lifecycle.language
lifecycle.diagrams.palette  lifecycle.diagrams.layout  lifecycle.diagrams.graph
lifecycle.diagrams.mermaid  lifecycle.diagrams.dot  lifecycle.diagrams.svg
lifecycle.diagrams.sequence
lifecycle.diagrams.sequence_svg
lifecycle.diagrams
lifecycle.policies  lifecycle.signals  lifecycle.outcomes
lifecycle.storage.base
lifecycle.storage.memory  lifecycle.storage.watch  lifecycle.storage.sqlite_schema  lifecycle.storage.listening
lifecycle.storage.sqlite_file
lifecycle.storage.sqlite
lifecycle.storage.postgres_schema  lifecycle.storage.postgres_wire
lifecycle.storage.postgres_sql
lifecycle.storage.postgres_watch
lifecycle.storage.postgres_server
lifecycle.storage.postgres_exchange  lifecycle.storage.postgres_join  lifecycle.storage.postgres_doubt
lifecycle.storage.postgres_url
lifecycle.storage.postgres
lifecycle.storage.redis_wire  lifecycle.storage.redis_script  lifecycle.storage.redis_rows
lifecycle.storage.redis_url   lifecycle.storage.redis_watch
lifecycle.storage.redis_server
lifecycle.storage.redis_doubt
lifecycle.storage.redis
lifecycle.storage
lifecycle.engine
lifecycle.transaction
lifecycle.attempt  lifecycle.result
lifecycle.worker   lifecycle.crowd  lifecycle.function  lifecycle.locks
lifecycle.desk
lifecycle.queue
lifecycle
lifecycle.testing.walks
lifecycle.testing.strategies
lifecycle.testing.model  lifecycle.testing.steps  lifecycle.testing.asserting
lifecycle.testing.running  lifecycle.testing.hearing  lifecycle.testing.ledger  lifecycle.testing.troubled
lifecycle.testing.simulation
lifecycle.testing.chaos  lifecycle.testing.queue_spec
lifecycle.testing.law
lifecycle.testing.lockstep
lifecycle.testing.turns
lifecycle.testing.proof
lifecycle.testing.storage_spec
lifecycle.testing
lifecycle.testing.__main__  lifecycle.testing.plugin
consumer.life  consumer.handlers  consumer.memory  consumer.post  consumer.slate  consumer.greenlets
consumer.shift  consumer.health  consumer.bell
consumer.port
consumer.child  consumer.threads  consumer.loops
consumer.processes
consumer.kinds
consumer.load  consumer.consumer
consumer.demo
consumer.demo_tasks
consumer
consumer.cli_law  consumer.cli_migrate
consumer.recorder
consumer.actors
consumer.rehearsal
consumer.pictures
consumer.cli_diagram
consumer.cli
consumer.__main__
"""
"""Low to high. What stands in one line knows nothing of one another."""

PURE = ["lifecycle.machine", "lifecycle.table", "lifecycle.policies", "lifecycle.moments", "lifecycle.outcomes"]
PURE += [
    f"lifecycle.diagrams.{name}" for name in ("graph", "layout", "mermaid", "dot", "svg", "sequence", "sequence_svg")
]
WORLD = {"asyncio", "io", "logging", "os", "pathlib", "random", "socket", "sqlite3", "subprocess", "threading", "time"}

ADAPTERS = {  # library: the modules that may know it
    "transitions": r"lifecycle\.machine",
    "sqlite3": r"lifecycle\.storage\.(sqlite\w*|watch)",
    "redis": r"lifecycle\.storage\.redis\w*",
    "psycopg": r"lifecycle\.storage\.postgres\w*",
}

LONGEST = 450  # lines

LATE = {  # module: what it imports when that is used, since it costs a tenth of a program's start, or more
    "lifecycle.attempt": {"asyncio", "concurrent.futures"},
    "lifecycle.storage": {f"lifecycle.storage.{name}" for name in ("postgres", "postgres_url", "redis", "redis_url")},
    "lifecycle.transaction": {"lifecycle.storage.postgres"},
    "consumer.kinds": {"consumer.child", "consumer.processes", "consumer.loops"},
    "consumer.consumer": {"consumer.port"},
    "consumer.cli": {"consumer.cli_diagram", "consumer.cli_law", "consumer.cli_migrate", "consumer.demo"},
}

SLEEPERS = {  # (file, function): why it sleeps
    ("processes.py", "until"): "it looks again at what another process does, and tells nobody of",
    ("test_batches.py", "slow"): "a handler that is slow",
    ("trial.py", "pause"): "a program that does things to other processes at moments of chance, and looks on",
    ("consumers.py", "pass_through"): "a body that takes its time, in Python, where it can be interrupted",
    ("test_consumer.py", "work"): "a body that takes its time",
    ("test_stopping.py", "swallowing"): "a body that takes its time, and no interruption",
}

COINCIDENCES = {  # (module, word): why it is not the state, trigger or signal of that name
    ("lifecycle.testing.lockstep", "revoke"): "the name of a method of Storage",
    ("lifecycle.testing.lockstep", "cancel"): "the name of a method of Storage",
    ("lifecycle.testing.lockstep", "recover"): "the name of a method of Storage",
    ("lifecycle.errors", "error"): "a key of TaskException.metadata",
    ("lifecycle.outcomes", "error"): "a key of TaskException.metadata",
    ("lifecycle.function", "timeout"): "an option's name, in its error",
    ("lifecycle.queue", "timeout"): "an option's name, in its error",
    ("lifecycle.storage", "timeout"): "an option in a URL",
    ("lifecycle.testing.model", "retry"): "the name of a field of Task",
    ("lifecycle.testing.model", "timeout"): "the name of a field of Task",
    ("lifecycle.testing.lockstep", "enqueue"): "the name of a method of Storage",
    ("lifecycle.testing.storage_spec", "recover"): "the name of a method of Storage",
    ("lifecycle.testing.storage_spec", "revoke"): "the name of a method of Storage",
    **{
        ("lifecycle.testing.storage_spec", rule): "the name of a rule, for Hypothesis to print"
        for rule in ("complete", "fail", "time_out", "lock_out", "rate_limit", "cancel", "interrupt")
    },
    **{
        ("lifecycle.testing.simulation", call): "the name of a method of Storage"
        for call in ("enqueue", "recover", "cancel", "revoke")
    },
    **{
        ("lifecycle.storage.redis", name): "the name of a script" for name in ("enqueue", "recover", "cancel", "revoke")
    },
    ("lifecycle.storage.redis_script", "enqueue"): "the name of a script",
    ("lifecycle.storage.redis_url", "timeout"): "an option in a URL",
    ("consumer.recorder", "recover"): "the name of a method of Storage",
    ("consumer.child", "cancel"): "what a consumer asks of a worker's process",
    ("consumer.life", "interrupt"): "a trigger of the consumer's own life",
    ("consumer.cli", "interrupted"): "what it says when somebody presses Ctrl-C",
}


def folder(package):
    """Where a package is installed."""
    return Path(next(iter(find_spec(package).submodule_search_locations)))


def files():
    """Every module's name and file, as installed."""
    for package in ("lifecycle", "consumer"):
        root = folder(package)
        for path in sorted(root.rglob("*.py")):
            parts = (package, *path.relative_to(root).with_suffix("").parts)
            yield ".".join(parts).removesuffix(".__init__"), path


TESTS = sorted(Path(__file__).parent.rglob("*.py"))
FILES = dict(files())
LEVEL = {module: level for level, line in enumerate(LAYERS.split("\n")) for module in line.split()}


@cache
def tree(path):
    return ast.parse(path.read_text())


def imports(module, within=None):
    """The modules that a module imports, each with the line; `within`: a part of its text."""
    for node in ast.walk(within or tree(FILES[module])):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".") if FILES[module].name == "__init__.py" else module.split(".")[:-1]
                base = ".".join([*package[: len(package) - node.level + 1], *base.split(".")]).strip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield (inner if inner in FILES else base), node.lineno


def ours(module):
    return [(name, line) for name, line in imports(module) if name.split(".")[0] in ("lifecycle", "consumer")]


def defined(path):
    """The classes and functions in a file, each with its dotted name; what stands in a function is its own affair."""
    todo = [("", tree(path))]
    for prefix, node in todo:
        for part in ast.iter_child_nodes(node):
            if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield prefix + part.name, part
                if isinstance(part, ast.ClassDef):
                    todo.append((f"{prefix}{part.name}.", part))


# Layers ------------------------------------------------------------------------------------------------------------


def test_every_module_has_its_layer():
    """Each module stands in the list of layers, once, and each in the list exists."""
    assert [name for name, times in Counter(LAYERS.split()).items() if times > 1] == []
    missing, gone = sorted(FILES.keys() - LEVEL.keys()), sorted(LEVEL.keys() - FILES.keys())
    assert not missing, f"give {', '.join(missing)} a layer in LAYERS, above all that it imports"
    assert not gone, f"{', '.join(gone)} stand in LAYERS but do not exist"


@pytest.mark.parametrize("module", FILES)
def test_imports_go_down(module):
    """A module imports only from lower layers; so there are no cycles."""
    for name, line in ours(module):
        assert name in FILES, f"{module}:{line} imports {name}, which is no module"
        level, own = LEVEL.get(name, -1), LEVEL.get(module, len(LEVEL))
        assert level < own, f"{module}:{line} imports {name}, which is not below it"


@pytest.mark.parametrize("module", FILES)
def test_imports_stand_at_the_top(module):
    """No import hides in a function but what few programs need and all would wait for; none goes by a name in a string."""
    late = set()
    for node in ast.walk(tree(FILES[module])):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            late |= {name for name, _ in imports(module, node)}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            named = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else ""
            assert named.split(".")[0] not in ("lifecycle", "consumer"), f"{module}:{node.lineno} imports late"
    assert late == LATE.get(module, set())


@pytest.mark.parametrize("module", ["lifecycle", "consumer.cli"])
def test_late_is_late(module):
    """What is to come late does not come with a program's start, by another way."""
    names = f"import {module}, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-P", "-c", names], check=True, capture_output=True, text=True
    ).stdout.split()
    assert module in loaded
    assert [name for names in LATE.values() for name in names if name in loaded] == []


def test_the_library_knows_no_consumer():
    """`lifecycle` never imports `consumer`."""
    libraries = [module for module in FILES if module.split(".")[0] == "lifecycle"]
    assert len(libraries) > 20
    assert [(module, name) for module in libraries for name, _ in ours(module) if name.startswith("consumer")] == []


@pytest.mark.parametrize("library", ADAPTERS)
def test_one_adapter_for_each_library(library):
    """What can be exchanged is known to its adapter alone."""
    users = {module for module in FILES for name, _ in imports(module) if name.split(".")[0] == library}
    assert [module for module in users if not re.fullmatch(ADAPTERS[library], module)] == []


def test_the_core_is_pure():
    """What decides what may happen touches no clock, no chance, no thread, no file and no socket."""
    assert [(module, name) for module in PURE for name, _ in imports(module) if name.split(".")[0] in WORLD] == []


# The clock ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", FILES)
def test_one_module_reads_the_clock(module):
    """Only `lifecycle.clock` asks what time it is; everything else is told."""
    asked = []
    for node in ast.walk(tree(FILES[module])):
        if isinstance(node, ast.Import):
            asked += [alias.name for alias in node.names if alias.name == "time"]
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            asked += [alias.name for alias in node.names if alias.name != "sleep"]  # which asks nothing
        elif isinstance(node, ast.Attribute) and node.attr in ("now", "utcnow", "today"):
            asked += [ast.unparse(node)] if re.search(r"\bdate(time)?\.", ast.unparse(node)) else []
    assert asked == [] or module == "lifecycle.clock"


@pytest.mark.parametrize("path", [path for path in TESTS if path.parent.name != "programs"], ids=lambda path: path.name)
def test_tests_do_not_sleep(path):
    """No test lets time pass by sleeping: it moves a clock, or waits for an event; programs that tests run may."""
    named, slept = {}, []  # what `time` and its `sleep` are called here; where they are called
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            whole = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            named |= {alias.asname or alias.name: f"{whole}{alias.name}" for alias in node.names}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            first, *rest = ast.unparse(node.func).split(".")
            slept += [node.lineno] if [named.get(first, first), *rest] in (["time", "sleep"], ["time.sleep"]) else []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef) and (path.name, node.name) in SLEEPERS:
            slept = [line for line in slept if not node.lineno <= line <= node.end_lineno]
    assert slept == [], f"{path.name} sleeps in lines {slept}"


# Docstrings and sizes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", FILES)
def test_public_names_say_what_they_are(module):
    """Each module, and each public class, method and function in it, has a docstring."""
    assert ast.get_docstring(tree(FILES[module])), f"{module} has no docstring"
    for name, node in defined(FILES[module]):
        public = not any(part.startswith("_") for part in name.split("."))
        overload = any(ast.unparse(mark).split(".")[-1] in ("overload", "setter") for mark in node.decorator_list)
        assert ast.get_docstring(node) or overload or not public, f"{module}:{node.lineno}: {name} has no docstring"


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_tests_say_what_they_hold(path):
    """Each test's docstring is a sentence: the specification is their sum."""
    assert ast.get_docstring(tree(path)), f"{path.name} has no docstring"
    for name, node in defined(path):
        if name.split(".")[-1].startswith("test"):
            text = ast.get_docstring(node) or ""
            assert text.split("\n")[0].endswith((".", "?", "!", ":")), f"{path.name}:{node.lineno}: {name} says nothing"


@pytest.mark.parametrize("path", [*FILES.values(), *TESTS], ids=lambda path: "/".join(path.parts[-2:]))
def test_files_are_short(path):
    """No file is longer than one can keep in mind."""
    length = len(path.read_text().splitlines())
    assert length <= LONGEST, f"{path.name} has {length} lines: split it"


# The law -----------------------------------------------------------------------------------------------------------


def strings(path):
    """The strings in a file, each with its line, without those that are documentation, or the names in `__all__`."""
    skip = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Expr):
            skip.add(node.value)
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            skip.update(ast.walk(node))
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in skip:
            yield node.value, node.lineno


def test_one_place_for_the_law():
    """No module but the table types the name of a state, a trigger or a signal; what looks like one has its reason."""
    words = {*LAW, *MOVES, *(signal for signal, *_ in LAW.values())}
    quoted = re.compile(rf"""['"]({"|".join(words)})['"]""")
    typed = {}
    for module, path in FILES.items():
        for text, line in strings(path) if module != "lifecycle.table" else ():
            found = {text} & words | set(quoted.findall(text))
            typed |= {(module, word): f"{module}:{line} types {word!r}" for word in found}
    assert [typed[at] for at in typed.keys() - COINCIDENCES.keys()] == []
    assert COINCIDENCES.keys() - typed.keys() == set(), "these are no longer there"
    assert all(COINCIDENCES.values())
