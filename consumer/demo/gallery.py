"""All pictures by name, and the formats that they can be drawn in."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from lifecycle.consumer.demo.replay import PERIODIC_TICK, STORAGE_PROTOCOL, record_scenario
from lifecycle.consumer.demo.scenarios import SCENARIOS
from lifecycle.consumer.demo.workflow_example import example_workflow
from lifecycle.consumer.states import CONSUMER_LIFECYCLE
from lifecycle.core.table import LIFECYCLE
from lifecycle.diagrams import (
    Graph,
    Sequence,
    Workflow,
    dot,
    graph,
    mermaid,
    sequence_mermaid,
    sequence_svg,
    svg,
    svg_narrow,
    workflow_dot,
    workflow_mermaid,
    workflow_svg,
)
from lifecycle.errors import ConfigurationError

__all__ = ["FILE_SUFFIXES", "FORMATS", "PICTURES", "Picture", "draw", "formats"]

Picture = Graph | Sequence | Workflow

FORMATS: Final = ("mermaid", "dot", "svg", "svg-narrow")
FILE_SUFFIXES: Final[Mapping[str, str]] = {"mermaid": "mmd", "dot": "dot", "svg": "svg", "svg-narrow": "narrow.svg"}
"""Format → suffix of its files."""
GRAPH_FORMATS: Final[Mapping[str, Callable[[Graph], str]]] = {
    "mermaid": mermaid,
    "dot": dot,
    "svg": svg,
    "svg-narrow": svg_narrow,
}
SEQUENCE_FORMATS: Final[Mapping[str, Callable[[Sequence], str]]] = {"mermaid": sequence_mermaid, "svg": sequence_svg}
WORKFLOW_FORMATS: Final[Mapping[str, Callable[[Workflow], str]]] = {
    "mermaid": workflow_mermaid,
    "dot": workflow_dot,
    "svg": workflow_svg,
}


def _slug(title: str) -> str:
    return re.sub(r"\W+", "-", title.lower()).strip("-")


PICTURES: Final[Mapping[str, Callable[[], Picture]]] = {
    "lifecycle": partial(graph, LIFECYCLE, "The lifecycle of a task"),
    "consumer": partial(graph, CONSUMER_LIFECYCLE, "The states of a consumer"),
    "workflow": example_workflow,
    "periodic": partial(record_scenario, PERIODIC_TICK),
    "storage": partial(record_scenario, STORAGE_PROTOCOL, full=True),
    **{f"scenario-{_slug(scenario.title)}": partial(record_scenario, scenario) for scenario in SCENARIOS},
}
"""Name → a function that makes the picture from a table, or by replaying a scenario."""


def formats(picture: Picture) -> tuple[str, ...]:
    """Return the formats that can show a picture."""
    return tuple(_drawn_as(picture))


def _drawn_as(picture: Picture) -> dict[str, Callable[[], str]]:
    """Return for each format that can show a picture a function that draws it."""
    if isinstance(picture, Graph):
        return {name: partial(function, picture) for name, function in GRAPH_FORMATS.items()}
    if isinstance(picture, Workflow):
        return {name: partial(function, picture) for name, function in WORKFLOW_FORMATS.items()}
    return {name: partial(function, picture) for name, function in SEQUENCE_FORMATS.items()}


def draw(picture: Picture, format: str) -> str:  # noqa: A002 -- the option's name
    """Return a picture's text in a format. Raises `ConfigurationError` if there is no such format for the picture."""
    if format not in FORMATS:
        raise ConfigurationError(f"no format {format!r}: there are {', '.join(FORMATS)}")
    drawn = _drawn_as(picture)
    if format not in drawn:
        kind = type(picture).__name__.lower()
        raise ConfigurationError(f"{format} cannot show a {kind}: draw {picture.title!r} as {' or '.join(drawn)}")
    return drawn[format]()
