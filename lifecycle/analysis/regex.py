"""Regular expressions over words, kept short during construction: common parts are written once.

An expression is a `Word`, a `Chain` of expressions, a `Choice` between expressions, or a `Loop` around one. Build
expressions with `Word`, `chain`, `choice` and `loop`, which factor out common beginnings and ends.
"""

import re
from collections.abc import Container, Iterator, Mapping
from types import MappingProxyType
from typing import Final

import attrs

__all__ = [
    "EMPTY", "Chain", "Choice", "Expression", "Loop", "Word", "chain", "choice", "loop", "parts", "pattern", "text",
    "weight",
]  # fmt: skip


@attrs.frozen
class Word:
    """Single word."""

    name: str


@attrs.frozen
class Chain:
    """Expressions one after the other; without parts: `EMPTY`, the empty sequence."""

    parts: "tuple[Expression, ...]"


@attrs.frozen
class Choice:
    """Choice of one option, or, if optional, the empty sequence."""

    options: "tuple[Expression, ...]"
    optional: bool = False


@attrs.frozen
class Loop:
    """Repetition, zero or more times."""

    body: "Expression"


Expression = Word | Chain | Choice | Loop
EMPTY: Final = Chain(())


def chain(*expressions: Expression) -> Expression:
    """Return the expressions one after the other."""
    inner = [part for expression in expressions for part in _parts(expression)]
    return inner[0] if len(inner) == 1 else Chain(tuple(inner))


def choice(*expressions: Expression) -> Expression:
    """Return a choice, with common beginnings and ends factored out. `EMPTY` among the options makes it optional."""
    options: dict[Expression, None] = {}
    optional = False
    for expression in expressions:
        optional |= expression == EMPTY or (isinstance(expression, Choice) and expression.optional)
        given = expression.options if isinstance(expression, Choice) else (expression,)
        options |= dict.fromkeys(one for one in given if one != EMPTY)
    listed = list(options)
    while factored := _factor(listed):
        listed = factored
    if len(listed) == 1 and isinstance(listed[0], Loop | Choice) and (optional or isinstance(listed[0], Choice)):
        only = listed[0]
        return attrs.evolve(only, optional=only.optional or optional) if isinstance(only, Choice) else only
    if not optional:
        return listed[0] if len(listed) == 1 else Choice(tuple(listed))
    return Choice(tuple(listed), optional=True) if listed else EMPTY


def loop(body: Expression) -> Expression:
    """Return a repetition, zero or more times."""
    if isinstance(body, Choice) and body.optional:
        body = choice(*body.options)
    return body if isinstance(body, Loop) or body == EMPTY else Loop(body)


def _parts(expression: Expression) -> tuple[Expression, ...]:
    return expression.parts if isinstance(expression, Chain) else (expression,)


def _factor(options: list[Expression]) -> list[Expression] | None:
    """Return the options after one factoring of a common end or beginning; ``None`` if there is none."""
    for place, rest in ((-1, slice(None, -1)), (0, slice(1, None))):
        for option in options:
            shared = _parts(option)[place]
            alike = [one for one in options if _parts(one)[place] == shared]
            if len(alike) > 1:
                varying = choice(*(chain(*_parts(one)[rest]) for one in alike))
                joined = chain(varying, shared) if place else chain(shared, varying)
                first = options.index(alike[0])
                others = [one for one in options if one not in alike]
                return [*others[:first], joined, *others[first:]]
    return None


def weight(expression: Expression) -> int:
    """Return the number of words in an expression."""
    match expression:
        case Word():
            return 1
        case Chain(inner) | Choice(inner):
            return sum(map(weight, inner))
        case Loop(body):
            return weight(body)


def pattern(expression: Expression) -> str:
    """Return a pattern for `re.fullmatch`, on the words with a space after each word."""
    match expression:
        case Word(name):
            return re.escape(name) + " "
        case Chain(inner):
            return "".join(map(pattern, inner))
        case Choice(options, optional):
            return f"(?:{'|'.join(map(pattern, options))})" + "?" * optional
        case Loop(body):
            return f"(?:{pattern(body)})*"


def text(expression: Expression, names: Mapping[Expression, str] = MappingProxyType({})) -> str:
    """Return a text for readers: ``|``, ``?`` and ``*`` as usual, with spaces between the words.

    `names`: names for parts. In a choice that contains all options of a named choice, the name replaces these options.
    """

    def write(one: Expression, inside: str) -> str:
        """Return the text of a part; `inside` is the kind of the expression around it and decides on parentheses."""
        if one in names:
            return names[one]
        match one:
            case Word(name):
                return name
            case Chain(inner):
                written = " ".join(write(part, "chain") for part in inner)
                return f"({written})" if inside == "mark" else written
            case Choice(options, optional=True):
                return write(choice(*options), "mark") + "?"
            case Choice(options):
                left = dict.fromkeys(options)
                for part in names:
                    if isinstance(part, Choice) and left.keys() >= set(part.options):
                        left = {part: None} | {option: None for option in left if option not in part.options}
                written = " | ".join(write(option, "choice") for option in left)
                return written if inside in ("", "choice") or len(left) == 1 else f"({written})"
            case Loop(body):
                return write(body, "mark") + "*"

    return write(expression, "")


def parts(expression: Expression, whole: Container[Expression] = ()) -> Iterator[Expression]:
    """Yield all subexpressions with repetitions, `expression` included; choices without their optional mark.

    `whole`: expressions whose parts are not yielded.
    """
    bare = choice(*expression.options) if isinstance(expression, Choice) else expression
    yield bare
    match expression:
        case Chain(inner) | Choice(inner) if bare not in whole:
            for part in inner:
                yield from parts(part, whole)
        case Loop(body) if bare not in whole:
            yield from parts(body, whole)
        case _:
            pass
