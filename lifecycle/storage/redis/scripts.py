"""The scripts that a Redis server runs: their text, filled in from the table, and what they are called with."""

import re
from collections.abc import Iterable
from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import Final, NamedTuple

from lifecycle.core import table
from lifecycle.core.policies import REVOKED_RANK
from lifecycle.core.table import LIFECYCLE, Kind
from lifecycle.storage.base import PROMOTE_LIMIT

__all__ = ["Script", "filled", "prefix", "script", "word"]

_FOLDER: Final = Path(__file__).with_name("lua")
_PARTS: Final = {
    **dict.fromkeys(("look", "counts", "next_due", "canceling", "void"), ()),
    **dict.fromkeys(("lock", "flush_locks"), ("base",)),
    "enqueue": ("policies", "base", "rows"),
}
"""What scripts are built on that do not need all of it."""

STORED: Final = tuple(state.name for state in LIFECYCLE.states if state.kind is not Kind.PASSING)
"""The states that a task is ever found in."""


class Script(NamedTuple):
    """A script, as the commands that run it begin."""

    text: str
    by_name: bytes
    """For a server that knows it."""
    by_text: bytes
    """For one that does not, and does from then on."""


@cache
def script(name: str) -> Script:
    """The script in that file, together with what it is built on."""
    parts = ("head", *_PARTS.get(name, ("policies", "base", "rows", "moves")), name)
    text = "\n".join(filled((_FOLDER / f"{part}.lua").read_text()) for part in parts)
    body = text.encode()
    by_name = b"*5\r\n" + word(b"EVALSHA") + word(sha1(body).hexdigest().encode())  # noqa: S324 -- Redis's own name
    return Script(text, by_name, b"*5\r\n" + word(b"EVAL") + word(body))


def word(argument: bytes) -> bytes:
    """A command's argument as it is sent."""
    return b"$%d\r\n%b\r\n" % (len(argument), argument)


def prefix(program: str, queue: str) -> str:
    """What the keys of a queue begin with: all in one slot of a cluster, and apart from those of any other queue."""
    for character in "%{}":
        queue = queue.replace(character, f"%{ord(character):02X}")
    return f"{{{program}:{queue}}}"


@cache
def _law() -> dict[str, str]:
    """The table, as the scripts have it."""
    names = {name: str(value) for name, value in vars(table).items() if name.isupper() and isinstance(value, str)}
    steps = [(source or "", end.name) for source, ends in LIFECYCLE.steps.items() for end in sorted(ends)]
    rows = [(row.source.name, row.trigger, row.target.name) for row in LIFECYCLE.transitions if row.source]
    return names | {
        "STEPS": _listed(f"{source}>{target}" for source, target in steps),
        "NEXT": _listed(">".join(row) for row in rows),
        "KINDS": ", ".join(f'["{state}"] = "{_kind(state)}"' for state in STORED),
        "RUNNING": _listed(LIFECYCLE.of_kind(Kind.RUNNING)),
        "STORED": _listed(STORED),
        "REVOKED_RANK": str(REVOKED_RANK),
        "PROMOTE_LIMIT": str(PROMOTE_LIMIT),
    }


def _kind(name: str) -> str:
    kind = LIFECYCLE.state(name).kind
    return kind.value if kind in (Kind.WAITING, Kind.RUNNING) else "resting"


def _listed(words: Iterable[str]) -> str:
    return f"|{'|'.join(words)}|"


def filled(text: str) -> str:
    """Lua with the table's own words in the places of ``$NAMES``."""
    return re.sub(r"\$([A-Z_]+)", lambda found: _law()[found[1]], text)
