"""The Lua scripts that a Redis server runs: their text, with values from the table, and the commands that run them."""

import re
from collections.abc import Iterable
from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import Final, NamedTuple

from lifecycle.core import table, task
from lifecycle.core.policies import REVOKED_RANK
from lifecycle.core.table import LIFECYCLE, Kind
from lifecycle.core.task import FENCE
from lifecycle.storage.base import PROMOTE_LIMIT

__all__ = ["STORED_STATES", "Script", "command_word", "filled", "key_prefix", "script"]

_FOLDER: Final = Path(__file__).with_name("lua")
_PARTS: Final = {
    **dict.fromkeys(("tasks", "counts", "next_due", "canceling", "resolve", "state_sets", "statuses"), ()),
    **dict.fromkeys(("lock", "flush_locks", "pause_periodic"), ("base",)),
    **dict.fromkeys(("enqueue", "sort_in"), ("policies", "base", "rows")),
}
"""Files that a script includes, by the name of the script; a script without an entry includes all."""
_ALL_PARTS: Final = ("policies", "base", "rows", "moves")

STORED_STATES: Final = tuple(state.name for state in LIFECYCLE.states if state.kind is not Kind.PASSING)
"""The states in which a stored task can be."""


class Script(NamedTuple):
    """A script, and the beginnings of the commands that run it."""

    text: str
    evalsha: bytes
    """Runs a script that the server knows, by its hash."""
    eval: bytes
    """Runs any script, by its text; from then on the server knows the script."""


@cache
def script(name: str) -> Script:
    """Return the script in the file of that name, with the files that it includes."""
    parts = ("arguments", *_PARTS.get(name, _ALL_PARTS), name)
    text = "\n".join(filled((_FOLDER / f"{part}.lua").read_text()) for part in parts)
    source = text.encode()
    digest = sha1(source).hexdigest().encode()  # noqa: S324 -- Redis names scripts by SHA-1
    return Script(
        text,
        b"*5\r\n" + command_word(b"EVALSHA") + command_word(digest),
        b"*5\r\n" + command_word(b"EVAL") + command_word(source),
    )


def command_word(argument: bytes) -> bytes:
    """Return a word of a command as Redis expects it."""
    return b"$%d\r\n%b\r\n" % (len(argument), argument)


def key_prefix(program: str, queue: str) -> str:
    """Return the prefix of a queue's keys: one slot of a cluster, and different for each queue."""
    for character in "%{}":
        queue = queue.replace(character, f"%{ord(character):02X}")
    return f"{{{program}:{queue}}}"


@cache
def _values() -> dict[str, str]:
    """Return the values of the names that are filled in."""
    names = {name: str(value) for name, value in vars(table).items() if name.isupper() and isinstance(value, str)}
    steps = [(source or "", end.name) for source, ends in LIFECYCLE.steps.items() for end in sorted(ends)]
    rows = [(row.source.name, row.trigger, row.target.name) for row in LIFECYCLE.transitions if row.source]
    return names | {
        "STEPS": _listed(f"{source}>{target}" for source, target in steps),
        "NEXT": _listed(">".join(row) for row in rows),
        "KINDS": ", ".join(f'["{state}"] = "{_kind(state)}"' for state in STORED_STATES),
        "RUNNING": _listed(LIFECYCLE.of_kind(Kind.RUNNING)),
        "STORED": _listed(STORED_STATES),
        "REVOKED_RANK": str(REVOKED_RANK),
        "PROMOTE_LIMIT": str(PROMOTE_LIMIT),
        "FENCE_MATCHES": " and ".join(f"row.{name} == fence[{place}]" for place, name in enumerate(FENCE, 1)),
        **{name: str(value) for name, value in vars(task).items() if name.startswith("HISTORY_")},
        "FENCE_ID": str(FENCE.index("id") + 1),
    }


def _kind(name: str) -> str:
    kind = LIFECYCLE.state(name).kind
    return kind.value if kind in (Kind.WAITING, Kind.RUNNING) else "resting"


def _listed(words: Iterable[str]) -> str:
    return f"|{'|'.join(words)}|"


def filled(text: str) -> str:
    """Return Lua with values in the places of ``$NAMES``."""
    return re.sub(r"\$([A-Z_]+)", lambda found: _values()[found[1]], text)
