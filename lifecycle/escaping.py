"""Text of users as it is shown: on terminals, in log lines, in messages of errors.

A task's name or id may hold any character. Shown as it is, an escape sequence changes the terminal, a newline forges a
log line, and a bidirectional override shows the characters in another order than they are in.
"""

import re
from typing import Final

__all__ = ["printable", "printable_lines"]

_CONTROLS: Final = (
    r"\x7f-\x9f"  # delete, and the second set of control characters
    r"\xad\u180e\u200b\u2060-\u2064\ufeff"  # invisible: two ids that differ would look alike
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # change the direction, or the shape, of other characters
    r"\u2028\u2029"  # ends of lines
    r"\ufff9-\ufffb\U000e0000-\U000e007f"  # annotations and tags
    r"\ud800-\udfff"  # lone surrogates, which no encoding can write
)
_IN_A_LINE: Final = re.compile(rf"[\x00-\x1f{_CONTROLS}]")
_IN_LINES: Final = re.compile(rf"[\x00-\x08\x0b-\x1f{_CONTROLS}]")  # all but tabs and newlines


def printable(text: str) -> str:
    r"""Return a text on one line, with each control character as a Python literal writes it: ``\n``, ``\x1b``.

    Other characters stay, backslashes included: the result is for people, and may stand for two texts.
    """
    return text if text.isprintable() else _IN_A_LINE.sub(_literal, text)


def printable_lines(text: str) -> str:
    """Return a text as `printable` does, but with its newlines and tabs: for tracebacks."""
    return _IN_LINES.sub(_literal, text)


def _literal(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
