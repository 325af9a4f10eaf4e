"""Does the suite pass every time? Run it again and again, and list whatever failed in any run.

``python tests/again 10`` runs the suite ten times, each with another seed for Hypothesis and in another order, beside a
process that keeps one core busy. Whatever follows the number is passed on to pytest: files, ``-k``, ``-n``.
Exit code 1 if anything failed. ``LIFECYCLE_TEST_PROFILE=thorough`` has it run the thorough profile.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from secrets import randbelow
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
TESTS_FAILED = 1
"""The exit code of pytest after a run to its end, in which tests failed."""


class Run(NamedTuple):
    """One run of the suite."""

    number: int
    seed: int
    folder: Path
    arguments: list[str]

    @property
    def log(self):
        """The file with all that pytest wrote."""
        return self.folder / f"run-{self.number}.log"

    def command(self, *tests):
        """The command line of pytest for this run; `tests`: ids, to run these alone."""
        seeds = [f"--hypothesis-seed={self.seed}", f"--shuffle={self.seed}"]
        return ["pytest", "-p", "again.shuffle", *seeds, *(tests or self.arguments)]

    def failed(self):
        """Run it; return the ids of the tests that failed."""
        failures = self.folder / f"run-{self.number}.failures"
        failures.touch()
        environment = os.environ | {
            "PYTHONPATH": str(ROOT / "tests"),
            "HYPOTHESIS_STORAGE_DIRECTORY": str(self.folder / f"run-{self.number}.hypothesis"),  # nothing is replayed
        }
        environment.pop("CI", None)  # where Hypothesis would do without chance
        with self.log.open("w") as log:
            ended = subprocess.run(  # -P: what is installed is tested, not the current folder
                [sys.executable, "-P", "-m", *self.command(), f"--failures={failures}"],
                cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False,
            )  # fmt: skip
        tests = list(dict.fromkeys(failures.read_text().splitlines()))
        if ended.returncode not in (0, TESTS_FAILED) or (ended.returncode and not tests):
            tests.append(f"(pytest itself: exit code {ended.returncode})")
        return tests


LOAD = f"import os\nwhile os.getppid() == {os.getpid()}: pass"
"""A program that keeps a core busy for as long as this one lives, even if this one is killed."""


@contextmanager
def busy(processes):
    """Keep so many cores busy."""
    load = [subprocess.Popen([sys.executable, "-c", LOAD]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in load:
            process.kill()
            process.wait()


def say(text):
    """Print a line at once, also into a file."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def report(failures):
    """Print each test that failed: in which runs, and how one repeats that."""
    for test, runs in failures.items():
        say(f"\n{test}")
        for run in runs:
            say(f"  run {run.number}, seed {run.seed}, log {run.log}")
        say(f"  repeat: PYTHONPATH=tests {shlex.join(runs[0].command(test))}")


def main():
    """Parse the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python tests/again", description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=int, help="how many times")
    parser.add_argument(
        "--seed", type=int, help="the first run's seed, by default random; each further run's is one more"
    )
    parser.add_argument("--load", type=int, default=1, metavar="N", help="busy processes beside the suite (default 1)")
    options, arguments = parser.parse_known_args()
    if not any(argument.startswith("-n") for argument in arguments):
        arguments = ["-n", "auto", *arguments]
    first = randbelow(10**6) if options.seed is None else options.seed
    folder = Path(tempfile.mkdtemp(prefix="again-"))
    failures = defaultdict(list)
    with busy(options.load):
        for number in range(1, options.runs + 1):
            run, began = Run(number, first + number - 1, folder, ["-q", *arguments]), time.monotonic()
            tests = run.failed()
            for test in tests:
                failures[test].append(run)
            seconds = time.monotonic() - began
            say(f"run {number} of {options.runs}, seed {run.seed}: {len(tests)} failed, {seconds:.0f} s, {run.log}")
    report(failures)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
