"""The text of the package and of its tests, for the tests that read it."""

import ast
import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path


def files():
    """Every module's name and file, as installed."""
    root = Path(next(iter(find_spec("lifecycle").submodule_search_locations)))
    for folder, _, names in os.walk(root, followlinks=True):  # in the tree, `lifecycle/consumer` is a link
        for path in sorted(Path(folder, name) for name in names if name.endswith(".py")):
            parts = ("lifecycle", *path.relative_to(root).with_suffix("").parts)
            yield ".".join(parts).removesuffix(".__init__"), path


TESTS = sorted(Path(__file__).parents[1].rglob("*.py"))
FILES = dict(files())


@cache
def tree(path):
    return ast.parse(path.read_text())


def defined(path):
    """The classes and functions in a file, each with its dotted name; what stands in a function is its own affair."""
    todo = [("", tree(path))]
    for prefix, node in todo:
        for part in ast.iter_child_nodes(node):
            if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield prefix + part.name, part
                if isinstance(part, ast.ClassDef):
                    todo.append((f"{prefix}{part.name}.", part))
