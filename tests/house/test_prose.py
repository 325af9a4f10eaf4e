"""The docstrings: whatever is public has one, and they are plain English as far as a program can tell."""

import ast
import inspect
import re

import pytest
from support.source import FILES, TESTS, defined, tree

pytestmark = pytest.mark.untraced

NO_SUMMARY = re.compile(r"(What|Who|Whose|Is|Does|Has|As|Of|Those|One that|Whoever)\b")
"""Words that no docstring begins with."""
HEADLESS = re.compile(
    r"\b(?:what|whatever|whoever)\b"
    r"|(?:^|[.,:;(]\s+|\b(?:and|but|by|for|from|if|of|or|says?|than|that|to|with)\s+)who\b",
    re.IGNORECASE,
)
"""Pronouns that stand for a noun which is not there; `who` after a noun, as in "a worker who", is none."""
HEADLESS_PER_1000 = 3
"""How many of them 1,000 words may have; a file may have 1, however short it is."""


def test_public_names_have_docstrings():
    """Each module, and each public class, method and function in it, has a docstring."""
    for module, path in FILES.items():
        assert ast.get_docstring(tree(path)), f"{module} has no docstring"
        for name, node in defined(path):
            public = not any(part.startswith("_") for part in name.split("."))
            overload = any(ast.unparse(mark).split(".")[-1] in ("overload", "setter") for mark in node.decorator_list)
            assert ast.get_docstring(node) or overload or not public, f"{module}:{node.lineno}: {name} has no docstring"


def docstrings(path):
    """Yield the docstrings in a file, those of attributes included, each with its line and without its code."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, inspect.cleandoc(node.value.value)


def faults_in_prose(path):
    """Yield what is not plain English in the docstrings of a file, by the rules that can be checked."""
    words = headless = 0
    for line, text in docstrings(path):
        if NO_SUMMARY.match(text):
            yield f"line {line} begins with neither a noun nor a verb: {text.splitlines()[0]}"
        if text.startswith("See `"):
            yield f"line {line} only points elsewhere: {text.splitlines()[0]}"
        prose = re.sub(r"``.+?``|`.+?`", "code", text, flags=re.DOTALL)
        words += len(prose.split())
        headless += len(HEADLESS.findall(prose))
    if headless > max(1, words * HEADLESS_PER_1000 // 1000):
        yield f"what, who, whoever or whatever without a noun {headless} times in {words} words"


def test_docstrings_are_plain():
    """A docstring begins with a noun or a verb, says a thing by its noun, and does not only point elsewhere."""
    assert {module: found for module, path in FILES.items() if (found := [*faults_in_prose(path)])} == {}


def test_docstring_of_each_test_is_a_sentence():
    """Each test's docstring is a sentence: the specification is their sum."""
    for path in TESTS:
        assert ast.get_docstring(tree(path)), f"{path.name} has no docstring"
        for name, node in defined(path):
            if name.split(".")[-1].startswith("test"):
                text = ast.get_docstring(node) or ""
                assert text.split("\n")[0].endswith((".", "?", "!", ":")), (
                    f"{path.name}:{node.lineno}: {name} says nothing"
                )
