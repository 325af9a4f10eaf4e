"""The shape of the code, read from its text: layers, adapters, the clock, sizes, where the law stands."""

import ast
import re
import subprocess
import sys
from collections import Counter

import pytest
from support.source import FILES, TESTS, tree
from support.strategies import LAW, MOVES

pytestmark = pytest.mark.untraced

LAYERS = """
lifecycle:                       escaping / errors / clock hints owned_thread validation wrapping / virtual_clock
lifecycle.core:                  machine nodes schedules serializer / table / step / task / policies
lifecycle.analysis:              checker properties regex trace / grammar
lifecycle.diagrams:              palette drawing.layout / graph workflow / dot mermaid drawing.placement
lifecycle.diagrams:              sequence workflow_text drawing.parts / drawing.graph drawing.narrow drawing.sequence drawing.workflow
lifecycle:                       diagrams
lifecycle.execution:             callables forks heartbeat interruption stored_result / process_name registry signals
lifecycle.storage:               base / claims memory_periodic memory_rows notifications / memory
lifecycle.storage.sqlite:        errors file_identity schema statements watcher / removed_log workflows / database / transaction
lifecycle.storage.sqlite:        locks lookups periodic summary / storage
lifecycle.storage.postgres:      rows schema_of_summaries schema_of_workflows session / schema / errors statements transaction url / external_transaction in_doubt
lifecycle.storage.postgres:      listener pool exchange / holds insertion server / periodic summary / storage
lifecycle.storage.redis:         connection / errors listener rows scripts url / server / in_doubt / storage
lifecycle:                       storage
lifecycle.execution:             attempt_log environment new_tasks pace / engine
lifecycle.execution:             attempt by_hand external_transaction inputs / earlier_attempts runner ticks
lifecycle.execution:             async_runner worker
lifecycle:                       locks result
lifecycle.workflows:             plan / arguments results / planning
lifecycle:                       function / decorators enqueueing / periodic / queue / api
lifecycle.testing:               strategies.paths / strategies / assertions inline signal_log
lifecycle.testing.storage_spec:  reference_periodic workflow_invariants / reference_steps / reference_storage strategies / invariants / machine / agreement
lifecycle.testing.storage_spec:  claim_order_cases operator_rules periodic_rules worker_rules / periodic_cases workflow_rules / workflow_cases / cases / spec
lifecycle.testing.simulation:    audit faults lease_audit stepping tick_audit workflow_audit / world / queue_spec random_run
lifecycle.testing:               property_based
lifecycle:                       testing
lifecycle.testing:               __main__ plugin
lifecycle.consumer:              contact import_errors log_output os_signals process_memory states / health stop_requests / health_server
lifecycle.consumer.workers:      base shared_status / loop / process_main thread / asyncio_ gevent_ process / types
lifecycle.consumer:              loading maintenance new_code / consumer
lifecycle.huey:                  constants crontab exceptions rate_limits locks serializer signals key_values utils / base
lifecycle.huey:                  consumer tasks / results workflows / by_hand functions handlers / queue / stores / api
lifecycle:                       huey
lifecycle.huey.contrib:          asyncio
lifecycle.consumer.demo:         environment storage_tracer workflow_example / replay_processes scenarios tasks / replay story / demo gallery
lifecycle.consumer.cli:          options output streams / columns reload task_fields task_ids / selection / listing
lifecycle.consumer.cli:          act call check completion cron demo diagram inspect migrate purge run verify workers / main
lifecycle:                       __main__
"""
"""Low to high: the modules of a package, `/` between two layers. Modules of one layer do not import one another.

Packages whose `__init__` is a docstring alone are left out, and so is `lifecycle` itself, which only passes names on.
"""

PURE = re.compile(
    r"lifecycle\.(escaping|core\.(machine|table|policies)|validation|diagrams|execution\.stored_result)\b"
)
WORLD = {"asyncio", "io", "logging", "os", "pathlib", "random", "socket", "sqlite3", "subprocess", "threading", "time"}

ADAPTERS = {  # library: the modules that may know it
    "transitions": r"lifecycle\.core\.machine",
    "sqlite3": r"lifecycle\.storage\.sqlite\.\w+",
    "redis": r"lifecycle\.storage\.redis\.\w+",
    "psycopg": r"lifecycle\.storage\.postgres\.\w+",
}

LONGEST = 450  # lines

COMMANDS = [
    "act", "call", "check", "completion", "cron", "demo", "diagram", "inspect", "listing", "migrate", "purge", "run", "verify",
    "workers",
]  # fmt: skip

LATE = {  # module: what it imports when that is used, and why most programs need not wait for it
    # `lifecycle --help` needs no task, and most programs only enqueue.
    "lifecycle": {"lifecycle.api", "lifecycle.consumer.consumer"},
    # Only `PickleSerializer` needs the first two, and only values with a zone the third.
    "lifecycle.core.serializer": {"hmac", "pickle", "zoneinfo"},
    # Few periodic tasks have a zone.
    "lifecycle.core.schedules": {"zoneinfo"},
    # For the name of a process that acts on tasks.
    "lifecycle.execution.process_name": {"socket"},
    # For `async` functions.
    "lifecycle.execution.runner": {"asyncio", "concurrent.futures"},
    # A program uses one store.
    "lifecycle.storage": {
        f"lifecycle.storage.{name}" for name in ("postgres.storage", "postgres.url", "redis.storage", "redis.url")
    },
    "lifecycle.execution.external_transaction": {"lifecycle.storage.postgres.storage"},
    # A program that enqueues needs no consumer, and few programs give a `PostgresHuey` parameters in place of a URL.
    "lifecycle.huey.queue": {"lifecycle.huey.consumer"},
    "lifecycle.huey.stores": {"lifecycle.storage.postgres.url"},
    # A consumer uses one kind of workers, seldom a health server, and is seldom restarted.
    "lifecycle.consumer.workers.types": {
        f"lifecycle.consumer.workers.{name}" for name in ("process", "asyncio_", "gevent_")
    },
    "lifecycle.consumer.consumer": {"lifecycle.consumer.health_server", "lifecycle.consumer.new_code"},
    # Programs, and most of their tests, need no Hypothesis.
    "lifecycle.testing": {"lifecycle.testing.property_based"},
    # A command line runs one command. `verify` and `check` need no queue; `rich` prints errors, and logs on terminals.
    "lifecycle.consumer.loading": {"lifecycle.function", "lifecycle.queue"},
    "lifecycle.consumer.cli.main": {
        "click.shell_completion",
        "importlib.metadata",
        "rich.console",
        "rich.text",
        *(f"lifecycle.consumer.cli.{name}" for name in COMMANDS),
    },
    "lifecycle.consumer.cli.options": {
        f"lifecycle.{name}" for name in ("core.table", "queue", "consumer.loading", "storage")
    },
    # Colours, on a terminal only.
    "lifecycle.consumer.cli.output": {"lifecycle.diagrams.palette"},
    "lifecycle.consumer.cli.run": {"lifecycle.consumer.workers.gevent_"},
    "lifecycle.consumer.log_output": {"rich.console", "rich.logging", "logging.config", "tomllib"},
}

SLEEPERS = {  # (file, function): why it sleeps
    ("processes.py", "until"): "it looks again at what another process does, and tells nobody of",
    ("test_worker_batches.py", "slow"): "a handler that is slow",
    ("trial.py", "pause"): "a program that does things to other processes at moments of chance, and looks on",
    ("consumers.py", "run"): "a body that takes its time, in Python, where it can be interrupted",
    ("test_consumer.py", "work"): "a body that takes its time",
    ("test_stopping.py", "swallowing"): "a body that takes its time, and no interruption",
}

COINCIDENCES = {  # (module, word): why it is not the state, trigger or signal of that name
    ("lifecycle.core.schedules", "skip"): "what becomes of a tick that was missed",
    ("lifecycle.hints", "defer"): "the name of a method of another task queue",
    ("lifecycle.testing.strategies", "skipped"): "the way in which a history is illegal",
    ("lifecycle.testing.storage_spec.agreement", "revoke"): "the name of a method of Storage",
    ("lifecycle.testing.storage_spec.agreement", "cancel"): "the name of a method of Storage",
    ("lifecycle.testing.storage_spec.agreement", "recover"): "the name of a method of Storage",
    ("lifecycle.consumer.cli.cron", "schedule"): "the head of a column: a rule",
    ("lifecycle.errors", "error"): "a key of TaskException.metadata",
    ("lifecycle.execution.attempt_log", "error"): "a key of TaskException.metadata",
    ("lifecycle.execution.stored_result", "error"): "a key of TaskException.metadata",
    ("lifecycle.execution.new_tasks", "timeout"): "an option's name, in its error",
    ("lifecycle.function", "timeout"): "an option's name, in its error",
    ("lifecycle.decorators", "timeout"): "an option's name, in its error",
    ("lifecycle.hints", "timeout"): "an option's name",
    ("lifecycle.hints", "expire"): "an option's name in another task queue",
    ("lifecycle.hints", "retry"): "an option's and a method's name in another task queue",
    ("lifecycle.hints", "enqueue"): "a method's name in another task queue",
    ("lifecycle.huey.functions", "timeout"): "an option's name",
    ("lifecycle.huey.queue", "retry"): "an option's name, in its error",
    ("lifecycle.huey.stores", "timeout"): "an option in a URL",
    ("lifecycle.storage", "timeout"): "an option in a URL",
    ("lifecycle.testing.storage_spec.reference_storage", "retry"): "the name of a field of Task",
    ("lifecycle.testing.storage_spec.reference_storage", "timeout"): "the name of a field of Task",
    ("lifecycle.testing.storage_spec.agreement", "enqueue"): "the name of a method of Storage",
    ("lifecycle.testing.storage_spec.worker_rules", "recover"): "the name of a method of Storage",
    ("lifecycle.testing.storage_spec.operator_rules", "revoke"): "the name of a method of Storage",
    ("lifecycle.testing.storage_spec.operator_rules", "cancel"): "the name of a method of Storage",
    **{
        ("lifecycle.testing.storage_spec.worker_rules", rule): "the name of a rule, for Hypothesis to print"
        for rule in ("complete", "fail", "time_out", "lock_out", "rate_limit", "cancel", "interrupt")
    },
    **{
        ("lifecycle.testing.simulation.world", call): "the name of a method of Storage"
        for call in ("enqueue", "recover", "cancel", "revoke")
    },
    **{
        ("lifecycle.storage.redis.storage", name): "the name of a script"
        for name in ("enqueue", "recover", "cancel", "revoke")
    },
    ("lifecycle.storage.redis.scripts", "enqueue"): "the name of a script",
    ("lifecycle.storage.redis.url", "timeout"): "an option in a URL",
    ("lifecycle.consumer.demo.storage_tracer", "recover"): "the name of a method of Storage",
    ("lifecycle.consumer.workers.process_main", "cancel"): "what a consumer asks of a worker's process",
    ("lifecycle.consumer.states", "interrupt"): "a trigger of the consumer's own life",
    **{
        (f"lifecycle.consumer.cli.{module}", command): "the name of a command"
        for module in ("act", "main", "options")
        for command in ("retry", "cancel", "revoke")
    },
    ("lifecycle.consumer.cli.inspect", "error"): "the name of a field that is printed",
    ("lifecycle.consumer.cli.inspect", "enqueued"): "the name of a field that is printed",
    ("lifecycle.consumer.cli.inspect", "timeout"): "the name of a field that is printed",
    ("lifecycle.consumer.cli.inspect", "retry"): "a noun: one retry left",
    ("lifecycle.consumer.cli.listing", "error"): "the head of a column",
    ("lifecycle.consumer.cli.task_fields", "error"): "the name of a field that is printed",
    ("lifecycle.consumer.cli.run", "error"): "the name of a level of logging",
    ("lifecycle.consumer.cli.main", "interrupted"): "what it says when somebody presses Ctrl-C",
}


def layers():
    """Each module with its level: the layer that it stands in, counted from below."""
    level = 0
    for line in LAYERS.strip().split("\n"):
        package, _, layers = line.partition(":")
        for layer in layers.split("/"):
            level += 1
            yield from ((f"{package}.{module}", level) for module in layer.split())


LEVEL = dict(layers())


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


def nodes():
    """Yield every module's name with each node of its text."""
    for module, path in FILES.items():
        yield from ((module, node) for node in ast.walk(tree(path)))


def ours(module):
    return [(name, line) for name, line in imports(module) if name.split(".")[0] == "lifecycle"]


# Layers ------------------------------------------------------------------------------------------------------------


def test_every_module_has_its_layer():
    """Each module that holds code stands in the list of layers, once, and each in the list exists."""
    assert [name for name, times in Counter(name for name, _ in layers()).items() if times > 1] == []
    code = {module for module in FILES if len(tree(FILES[module]).body) > 1} - {"lifecycle"}
    missing, gone = sorted(code - LEVEL.keys()), sorted(LEVEL.keys() - FILES.keys())
    assert not missing, f"give {', '.join(missing)} a layer in LAYERS, above all that it imports"
    assert not gone, f"{', '.join(gone)} stand in LAYERS but do not exist"


def test_modules_import_only_from_lower_layers():
    """A module imports only from lower layers; so there are no cycles."""
    for module, name, line in ((importer, *found) for importer in FILES for found in ours(importer)):
        assert name in FILES, f"{module}:{line} imports {name}, which is no module"
        level, own = LEVEL.get(name, 10**6), LEVEL.get(module, 10**5)
        assert level < own, f"{module}:{line} imports {name}, which is not below it"


def test_imports_stand_at_the_top_but_for_listed_ones():
    """Imports stand at the top of a module, but for those in LATE, which few programs need; none goes by a name in a string."""
    late = {}
    for module, node in nodes():
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            if names := {name for name, _ in imports(module, node)}:
                late[module] = late.get(module, set()) | names
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            named = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else ""
            assert named.split(".")[0] != "lifecycle", f"{module}:{node.lineno} imports late"
    assert late == LATE


@pytest.mark.parametrize("module", ["lifecycle", "lifecycle.api", "lifecycle.consumer.cli.main"])
def test_late_imports_do_not_come_with_the_start(module):
    """The modules in LATE are not loaded by a program's start in another way."""
    names = f"import {module}, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-P", "-c", names], check=True, capture_output=True, text=True
    ).stdout.split()
    assert module in loaded
    late = {name for at in loaded for name in LATE.get(at, ())} - {module}
    assert sorted(late & {*loaded}) == []


@pytest.mark.parametrize("library", ADAPTERS)
def test_each_library_is_imported_by_its_adapter_alone(library):
    """Each exchangeable library is imported by its adapter alone."""
    users = {module for module in FILES for name, _ in imports(module) if name.split(".")[0] == library}
    assert [module for module in users if not re.fullmatch(ADAPTERS[library], module)] == []


def test_core_imports_nothing_of_the_outside_world():
    """The modules that decide moves import no clock, random numbers, threads, files or sockets."""
    assert [
        (module, name)
        for module in FILES
        if PURE.match(module)
        for name, _ in imports(module)
        if name.split(".")[0] in WORLD
    ] == []


# The clock ---------------------------------------------------------------------------------------------------------


def test_only_the_clock_module_reads_the_clock():
    """Only `lifecycle.clock` reads the time; all other code is given it."""
    asked = []
    for module, node in nodes():
        if isinstance(node, ast.Import):
            asked += [(module, alias.name) for alias in node.names if alias.name == "time"]
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            asked += [(module, alias.name) for alias in node.names if alias.name != "sleep"]  # which asks nothing
        elif isinstance(node, ast.Attribute) and node.attr in ("now", "utcnow", "today"):
            asked += [(module, ast.unparse(node))] if re.search(r"\bdate(time)?\.", ast.unparse(node)) else []
    assert [(module, name) for module, name in asked if module != "lifecycle.clock"] == []


def sleeps(path):
    """Yield the lines in which a file calls `time.sleep`, by whatever name, outside the functions in SLEEPERS."""
    nodes = [*ast.walk(tree(path))]
    named = {}  # what `time` and its `sleep` are called here
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            whole = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            named |= {alias.asname or alias.name: f"{whole}{alias.name}" for alias in node.names}
    allowed = [node for node in nodes if isinstance(node, ast.FunctionDef) and (path.name, node.name) in SLEEPERS]
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            first, *rest = ast.unparse(node.func).split(".")
            if [named.get(first, first), *rest] in (["time", "sleep"], ["time.sleep"]) and not any(
                function.lineno <= node.lineno <= function.end_lineno for function in allowed
            ):
                yield node.lineno


def test_tests_do_not_sleep():
    """No test sleeps: it moves a clock or waits for an event. Programs that tests run may."""
    paths = [path for path in TESTS if path.parent.name != "programs"]
    assert [f"{path.name}:{line}" for path in paths for line in sleeps(path)] == []


# Sizes ---------------------------------------------------------------------------------------------------------


def test_files_are_short():
    """No file is longer than one reader can keep in mind."""
    lengths = {"/".join(path.parts[-2:]): path.read_text().count("\n") for path in [*FILES.values(), *TESTS]}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST} == {}, "split them"


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


def test_only_the_table_types_names_of_the_law():
    """Only the table types the names of states, triggers and signals; each coincidence in another module has its reason."""
    words = {*LAW, *MOVES, *(signal for signal, *_ in LAW.values())}
    quoted = re.compile(rf"""['"]({"|".join(words)})['"]""")
    typed = {}
    for module, path in FILES.items():
        for text, line in strings(path) if module != "lifecycle.core.table" else ():
            found = {text} & words | set(quoted.findall(text))
            typed |= {(module, word): f"{module}:{line} types {word!r}" for word in found}
    assert [typed[at] for at in typed.keys() - COINCIDENCES.keys()] == []
    assert COINCIDENCES.keys() - typed.keys() == set(), "these are no longer there"
    assert all(COINCIDENCES.values())
