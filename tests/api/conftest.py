"""Fixture of modules for tests of registration."""

import importlib
import sys
from textwrap import dedent

import pytest


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Return a function that writes a module of a text, and imports or reloads it; the module finds `queue` there."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a stale one could be taken: both versions are of one second

    def write(name, text, **names):
        (tmp_path / f"{name}.py").write_text(dedent(text))
        importlib.invalidate_caches()
        sys.modules["given"] = type(sys)("given")
        vars(sys.modules["given"]).update(names)
        if name in sys.modules:
            return importlib.reload(sys.modules[name])
        return importlib.import_module(name)

    before = set(sys.modules)
    yield write
    for name in set(sys.modules) - before:
        if name == "given" or (tmp_path / f"{name}.py").exists():
            del sys.modules[name]
