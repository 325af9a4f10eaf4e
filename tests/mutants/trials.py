"""One mutant and its suites, in a process of its own."""

import contextlib
import importlib
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from mutants.catalog import ROOT, SOURCE, Mutant

PATIENCE = 300.0
"""Seconds after which a mutant that hangs is taken for noticed: with the original nothing takes as long."""
HANGS = 120
"""Seconds after which a test is taken for one that hangs. It fails then, and leaves no database and no server behind."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["pytest", "hypothesis", "hypothesis.stateful", "attrs", "msgspec", "transitions", "click"]
)


class Skipped(Exception):
    """A suite was not run, or not all of it: what it does not notice says nothing. The message says why."""


class Spy:
    """What failed first, and what was not run."""

    def __init__(self) -> None:
        self.failed: str | None = None
        self.skipped: str | None = None

    def pytest_runtest_logreport(self, report) -> None:
        """A test has ended, or its set-up."""
        if report.failed and self.failed is None:
            self.failed = report.nodeid
        if report.skipped and self.skipped is None and not hasattr(report, "wasxfail"):
            self.skipped = f"{report.nodeid} is skipped: {report.longrepr[-1]}"

    def pytest_collectreport(self, report) -> None:
        """A file was read."""
        if report.failed and self.failed is None:
            self.failed = f"{report.nodeid} (cannot be imported)"


@contextlib.contextmanager
def surroundings(mutant: Mutant, folder: str) -> Iterator[dict[str, str]]:
    """What the environment says while it is tried.

    A script that is broken may never end, and a server that runs it serves nobody any more, until it is killed. So no
    such script is given to the server that others use: a mutant of the Redis adapter has one of its own.
    """
    if not mutant.file.startswith("storage/redis/"):
        yield {}
        return
    from support import redis_server  # noqa: PLC0415 -- not where tests are run: there it is to read the environment anew

    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(redis_server.private_server(Path(folder) / "redis", "--appendonly", "no"))
        except (pytest.skip.Exception, pytest.fail.Exception) as missing:
            raise Skipped(f"{mutant.name}: {missing}") from None
        yield {"LIFECYCLE_TEST_REDIS": server.url}


def refused() -> str | None:
    """Why it cannot be imported: a table is checked as it is built. What is not even Python has shown nothing."""
    try:
        importlib.import_module(f"{SOURCE.name}.api")
    except (SyntaxError, NameError, ImportError):
        raise
    except Exception as error:
        return f"its import: {error}"
    return None


def trial(folder: str, suites: tuple[str, ...], verdict: str, environment: dict[str, str]) -> None:
    """In a process of its own: run the suites on the package in that folder, and write down what failed first."""
    import hypothesis  # noqa: PLC0415 -- loaded already, by the server that this process is a fork of

    os.chdir(folder)
    os.environ |= environment
    os.environ["PYTHONPATH"] = folder  # for processes that tests start
    os.environ["LIFECYCLE_TEST_PROFILE"] = "thorough"
    os.environ.pop("CI", None)  # where a server is missing, a test is to say so: it has not noticed anything
    sys.path.insert(0, folder)
    for name in [name for name in sys.modules if name.partition(".")[0] == SOURCE.name]:
        del sys.modules[name]  # the original, which the catalog was made from
    # A counterexample will do: nobody reads it, it need not be the shortest.
    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
    hypothesis.settings.register_profile("mutants", phases=phases, database=None)
    hypothesis.settings.load_profile("mutants")
    if (refusal := refused()) is not None:
        Path(verdict).write_text(json.dumps([refusal, None]))
        os._exit(0)
    spy = Spy()
    names = [str(ROOT / "tests" / suite) for suite in suites]
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        code = pytest.main(
            [
                "-x",
                "-q",
                f"--timeout={HANGS}",
                "--assert=plain",
                "-p",
                "no:cacheprovider",
                "-c",
                str(ROOT / "pyproject.toml"),
                *names,
            ],
            plugins=[spy],
        )
    if not sys.modules[SOURCE.name].__file__.startswith(folder):
        sys.exit("it is not the mutant that was tested")
    if code and not spy.failed:
        sys.exit(f"pytest has ended with {code!r}, and no test has failed")
    Path(verdict).write_text(json.dumps([spy.failed, spy.skipped]))
    os._exit(0)  # whatever a mutant has left running


def noticed_by(mutant: Mutant) -> str | None:
    """The test that notices it; ``None``: no test does. Raises `Skipped` if that cannot be said."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        package = Path(folder) / SOURCE.name
        shutil.copytree(SOURCE, package, ignore=shutil.ignore_patterns("__pycache__"))
        mutant.apply(package)
        verdict = Path(folder) / "verdict"
        with surroundings(mutant, folder) as environment:
            process = _context.Process(target=trial, args=(folder, mutant.suites, str(verdict), environment))
            process.start()
            process.join(PATIENCE)
            if process.is_alive():
                process.kill()
                process.join()
                return "a test that hangs"
        if not verdict.exists():
            raise RuntimeError(f"{mutant.name}: its process has died with exit code {process.exitcode}")
        failed, skipped = json.loads(verdict.read_text())
        if failed is None and skipped is not None:
            raise Skipped(skipped)
        return failed
