"""Modules of a user with tables, one of them faulty, for commands that take ``module:TABLE``."""

OWN = """
from lifecycle import Kind, Lifecycle, State, Transition
open_, shut = State("open", "opened", Kind.WAITING, "its owner"), State("shut", "closed", Kind.FINAL, "nobody")
TABLE = Lifecycle([open_, shut], [Transition("make", None, open_, "it is made"), Transition("close", open_, shut, "it is closed")])
number = 5
"""
FAULTY = """
from lifecycle import Kind, Lifecycle, State, Transition
a, b, c = (State(name, name, kind, "x") for name, kind in (("a", Kind.WAITING), ("b", Kind.FINAL), ("c", Kind.WAITING)))
TABLE = Lifecycle([a, b, c], [Transition("make", None, a, ""), Transition("end", a, b, ""), Transition("undo", b, a, "")])
"""
