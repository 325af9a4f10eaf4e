"""Can the specification fail? Break the library in every known way, and see whether a test notices.

``python tests/mutants`` runs the suites against each mutant and prints those that no test has noticed; exit code 1 if
there is one that is not explained. ``--only TEXT`` takes those whose file or name has that text, ``--write`` brings the figures in
the documentation up to date. A run that is broken off goes on with ``--verdicts FILE``, as long as no file has changed.
"""

import argparse
import hashlib
import json
import os
import re
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from posixpath import normpath

from rich.progress import Progress

sys.path.insert(0, str(Path(__file__).parents[1]))
from mutants.catalog import EXPLAINED, ROOT, SOURCE, Mutant, mutants
from mutants.trials import Skipped, noticed_by

PAGE = ROOT / "docs" / "background" / "specification.md"


def _shown(mutant: Mutant) -> str:
    """The file, or, of the many that make up one, all of them."""
    file = Path(mutant.file)
    return str(file.with_name("*.lua") if file.suffix == ".lua" else file)


def figures(verdicts: dict[Mutant, str | None]) -> str:
    """What the documentation says of a whole run."""
    files = Counter(_shown(mutant) for mutant in verdicts)
    dead = Counter(_shown(mutant) for mutant, test in verdicts.items() if test is not None)
    rows = [f"| `{normpath('lifecycle/' + file)}` | {count} | {dead[file]} |" for file, count in files.items()]
    return "\n".join(
        [
            "| broken | in so many ways | noticed |", "| --- | --- | --- |", *rows,
            f"| all | {len(verdicts)} | {sum(dead.values())} |",
        ]
    )  # fmt: skip


def together(chosen: list[Mutant]) -> list[tuple[str, ...]]:
    """All that the suites of these mutants run, by file, nothing twice."""
    files: dict[str, dict[str, None]] = {}
    for suite in (suite for mutant in chosen for suite in mutant.suites):
        files.setdefault(suite.partition("::")[0], {})[suite] = None
    return [
        tuple(one for one in suites if not any(one.startswith(f"{whole}::") for whole in suites))
        for suites in files.values()
    ]


class Verdicts:
    """What is known of the files as they are now: kept in a file, a line each, if there is one."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._known = path, {}
        if path is None:
            return
        files = sorted(file for folder in (SOURCE, ROOT / "tests") for file in folder.rglob("*.*") if file.is_file())
        digest = hashlib.sha256()
        for file in files:
            if "__pycache__" not in file.parts:
                digest.update(f"{file.name}\0".encode() + file.read_bytes())
        self._tree = digest.hexdigest()
        for line in path.read_text().splitlines() if path.exists() else ():
            entry = json.loads(line)
            if entry["tree"] == self._tree:
                self._known[entry["mutant"]] = entry["test"]

    def of(self, mutant: Mutant) -> str | None:
        """The test that notices it, now or in an earlier run."""
        if mutant.name not in self._known:
            test = noticed_by(mutant)
            if self._path is None:
                return test
            with self._path.open("a") as file:
                file.write(json.dumps({"tree": self._tree, "mutant": mutant.name, "test": test}) + "\n")
            self._known[mutant.name] = test
        return self._known[mutant.name]


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="those whose file or name has this text")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many at once")
    parser.add_argument("--write", action="store_true", help="write the figures into the documentation")
    parser.add_argument("--verdicts", type=Path, help="keep what is found in this file, and go on from there")
    parser.add_argument("--verbose", action="store_true", help="print which test notices which mutant")
    options = parser.parse_args()
    chosen = [mutant for mutant in mutants() if options.only in f"{mutant.file} {mutant.name}"]
    for suites in together(chosen):
        try:
            test = noticed_by(Mutant("nothing is broken", "table.py", "", "", suites))
        except Skipped as reason:
            sys.stdout.write(f"{reason}: what it has to notice cannot be tried\n")
            return 2
        if test is not None:
            sys.stdout.write(f"{test} fails though nothing is broken\n")
            return 2
    verdicts, known = {}, Verdicts(options.verdicts)
    with Progress(transient=True) as progress, ThreadPoolExecutor(options.jobs) as pool:
        bar = progress.add_task("mutants", total=len(chosen))
        for mutant, test in zip(chosen, pool.map(known.of, chosen), strict=True):
            verdicts[mutant] = test
            progress.advance(bar)
            if options.verbose or (test is None and mutant.name not in EXPLAINED):
                progress.print(f"{mutant.name}: {test or 'SURVIVES'}", markup=False, highlight=False, soft_wrap=True)
    alive = [mutant.name for mutant, test in verdicts.items() if test is None]
    for name in alive:
        sys.stdout.write(f"survives: {name}{': ' + EXPLAINED[name] if name in EXPLAINED else ''}\n")
    sys.stdout.write(f"{len(chosen) - len(alive)} of {len(chosen)} were noticed\n")
    if options.write and not options.only:
        text = PAGE.read_text()
        part = figures(verdicts)
        PAGE.write_text(
            re.sub(
                r"(<!-- measured: mutants -->\n\n).*(\n\n<!-- end of what was measured -->)",
                rf"\1{part}\2",
                text,
                flags=re.DOTALL,
            )
        )
    return int(any(name not in EXPLAINED for name in alive))


if __name__ == "__main__":
    sys.exit(main())
