"""What is broken on purpose: rows of the table, and guards, each as one small change of a source file."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import lifecycle
from lifecycle.core.table import LIFECYCLE

ROOT = Path(__file__).parents[2]
SOURCE = Path(lifecycle.__file__).parent


class Mutant(NamedTuple):
    """One change, and the suites that have to notice it."""

    name: str
    file: str
    """Within the package."""
    old: str
    """Stands there once."""
    new: str
    suites: tuple[str, ...]
    """Files of tests, the quickest first; with a `::` a part of one."""

    def apply(self, package: Path) -> None:
        """Change a copy of the package; raises `LookupError` if what is to be changed is not there."""
        if not self.old:  # the original, to see that nothing else fails
            return
        path = package / self.file
        text = path.read_text()
        if text.count(self.old) != 1:
            raise LookupError(f"{self.name}: {self.old!r} stands {text.count(self.old)} times in {self.file}")
        path.write_text(text.replace(self.old, self.new))


# The table ---------------------------------------------------------------------------------------------------------


def _rows() -> list[str]:
    """The lines of the table in its source, in the table's order."""
    text = (SOURCE / "core/table.py").read_text()
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    rows = [ast.get_source_segment(text, call) for call in calls if ast.unparse(call.func) == "Transition"]
    return [f"        {row},\n" for row in rows if row is not None]


def _constant(name: str) -> str:
    """How a state or a trigger is called in the source of the table."""
    from lifecycle.core import table  # noqa: PLC0415 -- its private names too

    return next(key for key, value in vars(table).items() if key.isupper() and isinstance(value, str) and value == name)


def of_the_table() -> Iterator[Mutant]:
    """Each row removed; each row redirected to each other state; each edge added that is not there."""
    suites = ("core/test_table.py",)
    lines = dict(zip(LIFECYCLE.transitions, _rows(), strict=True))
    constants = {state.name: _constant(state.name) for state in LIFECYCLE.states}
    for row, line in lines.items():
        source = row.source.name if row.source is not None else "(new)"
        yield Mutant(f"table: no {row.trigger} from {source}", "core/table.py", line, "", suites)
        for state in LIFECYCLE.states:
            if state is not row.target:
                head, _, rest = line.partition(constants[row.target.name] + ', "')
                new = f'{head}{constants[state.name]}, "{rest}'
                yield Mutant(
                    f"table: {row.trigger} from {source} leads to {state.name}", "core/table.py", line, new, suites
                )
    last = list(lines.values())[-1]
    targets = {row.trigger: row.target for row in LIFECYCLE.transitions}
    for state in LIFECYCLE.states:
        for trigger, target in targets.items():
            if trigger not in LIFECYCLE.allowed(state):
                row = (
                    f'Transition({_constant(trigger)}, {constants[state.name]}, {constants[target.name]}, "no reason")'
                )
                new = f"{last}        {row},\n"
                yield Mutant(f"table: {trigger} from {state.name} is legal", "core/table.py", last, new, suites)


# The guards --------------------------------------------------------------------------------------------------------


def of_the_guards() -> Iterator[Mutant]:
    """Each guard dropped or bent."""
    for catalog in sorted(Path(__file__).parent.glob("*.toml")):
        for file, entry in tomllib.loads(catalog.read_text()).items():
            for change in entry["mutant"]:
                suites = change.pop("suites", entry["suites"])
                yield Mutant(file=file, suites=tuple(suites), **change)


EXPLAINED: dict[str, str] = {
    "postgres: once is for all of a claim": "the next task of that function finds it spent, and the claim looks anew",
}
"""Mutants that survive, and why no test can tell them from the original."""


def mutants() -> list[Mutant]:
    """All of them."""
    return [*of_the_guards(), *of_the_table()]
