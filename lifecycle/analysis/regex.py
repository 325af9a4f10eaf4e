"""Regular expressions over words, kept short while they are put together: what repeats is said once.

An expression is a `Word`, a `Chain` of expressions, a `Choice` between them, or a `Loop` round one. Make them with
`word`, `chain`, `choice` and `loop`, which take common beginnings and ends out of what they join.
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
    """One word."""

    name: str


@attrs.frozen
class Chain:
    """One after the other; of none: `EMPTY`, which stands for nothing at all."""

    parts: "tuple[Expression, ...]"


@attrs.frozen
class Choice:
    """One of these, or, if it is optional, none."""

    options: "tuple[Expression, ...]"
    optional: bool = False


@attrs.frozen
class Loop:
    """Any number of times, none included."""

    body: "Expression"


Expression = Word | Chain | Choice | Loop
EMPTY: Final = Chain(())


def chain(*expressions: Expression) -> Expression:
    """These one after the other."""
    inner = [part for expression in expressions for part in _parts(expression)]
    return inner[0] if len(inner) == 1 else Chain(tuple(inner))


def choice(*expressions: Expression) -> Expression:
    """One of these; what all or some begin or end with alike is said once. `EMPTY` among them makes it optional."""
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
    """This any number of times."""
    if isinstance(body, Choice) and body.optional:
        body = choice(*body.options)
    return body if isinstance(body, Loop) or body == EMPTY else Loop(body)


def _parts(expression: Expression) -> tuple[Expression, ...]:
    return expression.parts if isinstance(expression, Chain) else (expression,)


def _factor(options: list[Expression]) -> list[Expression] | None:
    """The options with those joined that end, or begin, alike; ``None`` if no two do."""
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
    """How many words are written in it."""
    match expression:
        case Word():
            return 1
        case Chain(inner) | Choice(inner):
            return sum(map(weight, inner))
        case Loop(body):
            return weight(body)


def pattern(expression: Expression) -> str:
    """For `re.fullmatch`, on the words with a space after each."""
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
    """For people: ``|``, ``?`` and ``*`` as usual, with spaces between the words.

    `names`: what parts are to be called. A choice that has all the options of one of these has its name in their place.
    """

    def write(one: Expression, inside: str) -> str:
        """`inside`: what the part stands in; it decides whether it takes parentheses."""
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
    """All that it is put together from, itself included, as often as it is written; choices as if not optional.

    `whole`: what is not taken apart further.
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
