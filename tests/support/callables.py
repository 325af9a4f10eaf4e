"""Functions with given parameters, for tests of registration."""

HOOKS = {"pre_execute": "task", "post_execute": "task, value, exc", "on_startup": "", "on_shutdown": ""}
"""Kinds of hooks, and the parameters of each."""


def of_text(parameters, body="pass", keyword="def"):
    """Return a function with these parameters."""
    namespace = {}
    exec(f"{keyword} function({parameters}):\n    {body}", namespace)  # noqa: S102
    return namespace["function"]
