"""Every picture there is, by name, and in each format that it can be drawn in."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from lifecycle.consumer.demo.demo import SCENARIOS
from lifecycle.consumer.demo.replay import PROTOCOL, rehearse
from lifecycle.consumer.states import CONSUMER_LIFECYCLE
from lifecycle.core.table import LIFECYCLE
from lifecycle.diagrams import Graph, Sequence, dot, graph, mermaid, sequence_mermaid, sequence_svg, svg
from lifecycle.errors import ConfigurationError

__all__ = ["ENDINGS", "FORMATS", "PICTURES", "Picture", "draw", "formats"]

Picture = Graph | Sequence

FORMATS: Final = ("mermaid", "dot", "svg")
ENDINGS: Final[Mapping[str, str]] = {"mermaid": "mmd", "dot": "dot", "svg": "svg"}
"""Of the files that hold them."""
DRAWN: Final[Mapping[str, Callable[[Graph], str]]] = {"mermaid": mermaid, "dot": dot, "svg": svg}
PLAYED: Final[Mapping[str, Callable[[Sequence], str]]] = {"mermaid": sequence_mermaid, "svg": sequence_svg}


def _slug(title: str) -> str:
    return re.sub(r"\W+", "-", title.lower()).strip("-")


PICTURES: Final[Mapping[str, Callable[[], Picture]]] = {
    "lifecycle": partial(graph, LIFECYCLE, "The lifecycle of a task"),
    "consumer": partial(graph, CONSUMER_LIFECYCLE, "The life of a consumer"),
    "storage": partial(rehearse, PROTOCOL, full=True),
    **{f"scenario-{_slug(scenario.title)}": partial(rehearse, scenario) for scenario in SCENARIOS},
}
"""Name → what makes it: of a table, or by running a scenario."""


def formats(picture: Picture) -> tuple[str, ...]:
    """Those that can show it."""
    return tuple(DRAWN if isinstance(picture, Graph) else PLAYED)


def draw(picture: Picture, form: str) -> str:
    """A picture in a format; raises `ConfigurationError` naming those there are."""
    if form not in FORMATS:
        raise ConfigurationError(f"no format {form!r}: there are {', '.join(FORMATS)}")
    if isinstance(picture, Graph):
        return DRAWN[form](picture)
    if form not in PLAYED:
        raise ConfigurationError(f"{form} cannot show a sequence: draw {picture.title!r} as {' or '.join(PLAYED)}")
    return PLAYED[form](picture)
