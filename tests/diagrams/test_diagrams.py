"""The pictures: what they show is the table, or what happened; they are committed as they are made.

``python tests/generate`` makes them anew, and the generated parts of all pages.
"""

import json
import re
from collections import Counter
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from generate.pictures import FOLDER, WRITE, files
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import patient, seldom

from lifecycle import LIFECYCLE, ConfigurationError
from lifecycle.consumer.demo.demo import SCENARIOS
from lifecycle.consumer.demo.gallery import FORMATS, PICTURES, draw, formats
from lifecycle.core.table import Kind, Lifecycle, State, Transition
from lifecycle.core.task import Record
from lifecycle.diagrams import Graph, Workflow, dot, graph, mermaid, route, svg, svg_narrow
from lifecycle.diagrams.drawing.parts import for_theme
from lifecycle.diagrams.drawing.placement import text_width
from lifecycle.diagrams.palette import DARK, INK, LIGHT, SHADES, TERMINAL
from lifecycle.testing.strategies import lifecycles

SVG = "{http://www.w3.org/2000/svg}"


# Reading pictures ----------------------------------------------------------------------------------------------------


def read_mermaid(text):
    """The states, each with its kind, and the rows, in a flowchart."""

    def plain(quoted):
        return re.sub(r"#(\d+);", lambda found: chr(int(found[1])), quoted)

    nodes, states, kind = {"new": None}, Counter(), None
    for line in text.splitlines():
        if found := re.fullmatch(r"    subgraph (\w+)", line):
            kind = found[1]
        elif found := re.fullmatch(r'        (\w+)\("(.*)"\)', line):
            nodes[found[1]] = plain(found[2])
            states[plain(found[2]), kind] += 1
    arrows = re.findall(r'^    (\w+) -->\|"(.*)"\| (\w+)$', text, re.MULTILINE)
    return states, Counter((plain(label), nodes[source], nodes[target]) for source, label, target in arrows)


def read_dot(text):
    """The same of a graph in DOT."""
    word = r'"((?:[^"\\]|\\.)*)"'

    def plain(quoted):
        return re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found[1], found[1]), quoted)

    states, kind = Counter(), None
    for line in text.splitlines():
        if found := re.fullmatch(r'    subgraph "cluster_(\w+)" \{', line):
            kind = found[1]
        elif found := re.fullmatch(rf"        {word} \[fillcolor.*\]", line):
            states[plain(found[1]), kind] += 1
    arrows = re.findall(rf"^    {word} -> {word} \[label={word}.*\]$", text, re.MULTILINE)
    rows = Counter((plain(label), plain(source) or None, plain(target)) for source, target, label in arrows)
    return states, rows


def read_svg(text):
    """The same of a drawing; what is written at an arrow is its trigger."""
    states, rows = Counter(), Counter()
    for group in ET.fromstring(text).iter(f"{SVG}g"):  # noqa: S314 -- our own
        look = group.get("class", "").split()
        words = [part.text for part in group.findall(f"{SVG}text")]
        if "state" in look:
            assert words == [group.get("data-state")]
            states[words[0], look[1]] += 1
        elif "edge" in look:
            assert words[0] == group.get("data-trigger")
            for source in json.loads(group.get("data-sources")):
                rows[words[0], source, group.get("data-target")] += 1
    return states, rows


READERS = {
    "mermaid": (mermaid, read_mermaid),
    "dot": (dot, read_dot),
    "svg": (svg, read_svg),
    "svg-narrow": (svg_narrow, read_svg),
}
by_format = pytest.mark.parametrize("form", FORMATS)


def content(table):
    """Return the content of a table's diagram: each state and each row once."""
    return (
        Counter((state.name, state.kind.value) for state in table.states),
        Counter((row.trigger, row.source and row.source.name, row.target.name) for row in table.transitions),
    )


# What is committed ---------------------------------------------------------------------------------------------------


def test_committed_diagrams_are_up_to_date():
    """The files in `diagrams/` are, byte for byte, made from the tables and the scenarios; there are no others."""
    made = files()
    there = {path.name: path.read_bytes() for path in FOLDER.iterdir()}
    stale = sorted(name for name in made.keys() | there.keys() if there.get(name) != made.get(name, "").encode())
    assert not stale, f"diagrams/{', diagrams/'.join(stale)}: out of date, run {WRITE}"


def test_each_scenario_and_table_has_a_diagram_of_its_own():
    """Each scenario of the demo has its picture, each table, a workflow and a tick; no two are alike."""
    made = [make() for make in PICTURES.values()]
    titles = [picture.title for picture in made]
    assert [title for title in titles if title in {one.title for one in SCENARIOS}] == [s.title for s in SCENARIOS]
    assert len({draw(picture, "mermaid") for picture in made}) == len(made) == len(SCENARIOS) + 5


# Tables --------------------------------------------------------------------------------------------------------------


@by_format
@patient
@given(table=lifecycles())
def test_diagram_shows_each_state_and_row_once(form, table):
    """A diagram of any table shows each state and each row exactly once, and nothing else."""
    made, read = READERS[form]
    assert read(made(graph(table, "any"))) == content(table)


@by_format
def test_diagrams_of_both_lifecycles_are_complete(form):
    """The diagrams of the lifecycle and of a consumer's states show each state and row once as well."""
    _, read = READERS[form]
    assert read(draw(PICTURES["lifecycle"](), form)) == content(LIFECYCLE)
    assert sum(read(draw(PICTURES["consumer"](), form))[1].values()) > 10


odd = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=8)


@by_format
@patient
@given(names=st.lists(odd, min_size=2, max_size=2, unique=True), trigger=odd, title=odd, why=odd)
def test_names_may_be_any_text(form, names, trigger, title, why):
    """Quotes, brackets, other scripts: what is in a name, a trigger or a reason cannot break a picture."""
    made, read = READERS[form]
    assert read(made(graph(pair(names, trigger, why), title))) == content(pair(names, trigger, why))


def pair(names, trigger, why):
    """A table of two states."""
    begin, end = State(names[0], "a", Kind.WAITING, why), State(names[1], "b", Kind.FINAL, why)
    return Lifecycle([begin, end], [Transition(trigger, None, begin, why), Transition(trigger, begin, end, why)])


@given(name=st.text(min_size=1, max_size=8), trigger=st.text(max_size=4))
def test_a_drawing_is_well_formed(name, trigger):
    """A drawing can be parsed and written to a file, even if a name holds what XML does not allow."""
    drawing = svg(graph(pair([name, name + "!"], trigger, name), name))
    ET.fromstring(drawing.encode())  # noqa: S314 -- our own


@pytest.mark.untraced
@by_format
def test_removed_row_is_missing_in_the_diagram(form):
    """A table without one row gives a diagram without that row and with all others."""
    made, read = READERS[form]
    less = 0
    for row in LIFECYCLE.transitions:
        rest = [other for other in LIFECYCLE.transitions if other is not row]
        try:
            table = Lifecycle(LIFECYCLE.states, rest)
        except ConfigurationError:  # a state that it alone leads to
            continue
        less += 1
        drawn = made(graph(table, "The lifecycle of a task"))
        assert drawn != draw(PICTURES["lifecycle"](), form)
        assert content(LIFECYCLE)[1] - read(drawn)[1] == content(Lifecycle(LIFECYCLE.states, rest))[1].__class__(
            [(row.trigger, row.source and row.source.name, row.target.name)]
        )
    assert less > 10


def boxes(drawing):
    """Return the boxes of the texts and states of a drawing: left, top, right, bottom."""
    found = []
    for group in ET.fromstring(drawing).iter(f"{SVG}g"):  # noqa: S314 -- our own
        if "state" in group.get("class", "").split():
            rect = group.find(f"{SVG}rect")
            x, y, width, height = (float(rect.get(name)) for name in ("x", "y", "width", "height"))
            found.append((x, y, x + width, y + height))
        elif "edge" in group.get("class", "").split():
            for text in group.findall(f"{SVG}text"):
                x, y, half = float(text.get("x")), float(text.get("y")), text_width(text.text) / 2
                found.append((x - half, y - 9, x + half, y + 3))
    return found


def crowded(drawing):
    """Which of them lie upon one another, or outside."""
    size = ET.fromstring(drawing).get("viewBox").split()  # noqa: S314 -- our own
    found = boxes(drawing)
    outside = [box for box in found if box[0] < 0 or box[2] > float(size[2]) or box[3] > float(size[3])]
    return outside + [
        (one, other)
        for place, one in enumerate(found)
        for other in found[place + 1 :]
        if one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
    ]


DRAWINGS = pytest.mark.parametrize("make", [svg, svg_narrow])


def test_line_from_a_box_to_its_own_column_leaves_the_box():
    """States of a kind may share a line to a state in their own column: the line leaves the box of the kind."""
    kinds = {"0": Kind.WAITING, "1": Kind.OUTCOME, "00": Kind.OUTCOME, "000": Kind.FINAL}
    states = {name: State(name, f"signal {name}", kind, "a note") for name, kind in kinds.items()}
    steps = [(None, "a", "0"), ("0", "a", "1"), ("0", "b", "00"), ("0", "c", "000"), ("0", "d", "1")]
    steps += [("1", "a", "000"), ("00", "a", "000")]
    rows = [Transition(trigger, states.get(source), states[target], "a reason") for source, trigger, target in steps]
    table = Lifecycle(states.values(), rows)
    assert READERS["svg"][1](svg(graph(table, "any"))) == content(table)
    assert crowded(svg(graph(table, "any"))) == []


@pytest.mark.untraced
@DRAWINGS
@patient
@given(table=lifecycles())
def test_labels_and_states_do_not_overlap(make, table):
    """In a drawing of any table no label overlaps another label or a state, and none is cut off."""
    assert crowded(make(graph(table, "any"))) == []


@DRAWINGS
def test_labels_and_states_do_not_overlap_in_committed_drawings(make):
    """The committed drawings have no overlaps either."""
    for name in ("lifecycle", "consumer"):
        drawing = make(PICTURES[name]())
        assert len(boxes(drawing)) > 15
        assert crowded(drawing) == []


def edges(drawing, look="edge"):
    """Return the groups of the edges of a drawing that have a class."""
    groups = ET.fromstring(drawing).iter(f"{SVG}g")  # noqa: S314 -- our own
    return [group for group in groups if {"edge", look} <= set(group.get("class", "").split())]


def test_usual_way_is_one_straight_line():
    """The way of a task that completes is a straight line: each end and label has the same height."""
    main = edges(draw(PICTURES["lifecycle"](), "svg"), "main")
    way = [None, *(group.get("data-target") for group in main)]
    assert [
        LIFECYCLE.next(*step).name for step in zip(way, (g.get("data-trigger") for g in main), strict=False)
    ] == way[1:]
    assert LIFECYCLE.state(way[-1]).kind is Kind.FINAL
    heights = {
        height for group in main for height in re.findall(r"M[-\d.]+ ([-\d.]+)", group.find(f"{SVG}path").get("d"))
    }
    assert len(heights) == 1


def test_long_lines_are_level():
    """A line that passes several columns is level from its first bend to its last."""
    long = 0
    for group in edges(draw(PICTURES["lifecycle"](), "svg")):
        path = group.find(f"{SVG}path").get("d")
        ends = re.findall(r"C[-\d.]+ [-\d.]+ [-\d.]+ [-\d.]+ [-\d.]+ ([-\d.]+)", path)[:-1]
        starts = re.findall(r"C[-\d.]+ ([-\d.]+)", path)[1:]
        is_long = len(re.findall("H", path)) > 2
        assert not is_long or len({*starts, *ends}) <= 1
        long += is_long
    assert long >= 3


@DRAWINGS
def test_rows_of_all_states_of_a_kind_share_an_arrow(make):
    """If each state of a kind has the same trigger to the same state, one arrow leaves the box of the kind."""
    drawn = {
        (group.get("data-trigger"), group.get("data-target")): json.loads(group.get("data-sources"))
        for group in edges(make(PICTURES["lifecycle"]()))
        if len(json.loads(group.get("data-sources"))) > 1
    }
    outcomes = [state.name for state in LIFECYCLE.of_kind(Kind.OUTCOME)]
    waiting = [state.name for state in LIFECYCLE.of_kind(Kind.WAITING)]
    assert outcomes in drawn.values()
    assert list(drawn.values()).count(waiting) == 2


def test_narrow_drawing_fits_a_telephone():
    """The narrow drawings of the committed tables are at most 420 pixels wide."""
    for name in ("lifecycle", "consumer"):
        assert int(ET.fromstring(draw(PICTURES[name](), "svg-narrow")).get("width")) <= 420  # noqa: S314 -- our own


def test_ends_are_coloured_by_good_and_bad():
    """A final state without an attempt is grey, a failure is red, a success has the colour of its kind."""
    shades = PICTURES["lifecycle"]().shades
    assert shades["complete"] == Kind.FINAL
    assert shades["revoked"] == shades["expired"] == "never-run"
    assert shades["error"] == shades["timeout"] == "failed"
    assert {shades[state.name] for state in LIFECYCLE.states} == set(SHADES)


# The way of one task -------------------------------------------------------------------------------------------------


@st.composite
def walks(draw):
    """Histories that the lifecycle allows."""
    state, records, at = None, [], 1e9
    for _ in range(draw(st.integers(1, 12))):
        allowed = LIFECYCLE.allowed(state)
        if not allowed:
            break
        state = LIFECYCLE.next(state, draw(st.sampled_from(allowed))).name
        records.append(Record(state, at, "somebody", 1))
        at += draw(st.integers(0, 100))
    return records


@pytest.mark.untraced
@seldom
@given(records=walks())
def test_route_of_a_task_is_numbered_and_the_rest_is_dim(records):
    """The numbers in the diagram of one task, in order, are its history; all other parts are dim."""
    picture = route(LIFECYCLE, "task 7", records)
    states, passed = [None, *(record.state for record in records)], {}
    for group in ET.fromstring(svg(picture)).iter(f"{SVG}g"):  # noqa: S314 -- our own
        look = group.get("class", "").split()
        if "edge" in look:
            times = [text.text for text in group.findall(f"{SVG}text")[1:]]
            assert ("dim" in look, "passed" in look) == (not times, bool(times))
            for time in times:
                number, seconds = re.fullmatch(r"(\d+): \+(\d+\.\d\d) s", time).groups()
                (source,) = json.loads(group.get("data-sources"))
                passed[int(number)] = (source, group.get("data-target"), float(seconds))
        elif "state" in look:
            assert ("dim" not in look) == (group.get("data-state") in states)
    assert [passed[number] for number in range(1, len(records) + 1)] == [
        (*step, record.at - records[0].at) for step, record in zip(pairwise(states), records, strict=True)
    ]
    assert crowded(svg(picture)) == []
    written = re.findall(r"\((\d+): ", mermaid(picture))
    assert sorted(map(int, written)) == sorted(map(int, re.findall(r"\((\d+): ", dot(picture)))) == sorted(passed)


def test_route_passes_over_the_gap_of_a_long_history():
    """Records keep their numbers after a gap; the step over the gap is not drawn, and the text says how many lack."""
    records = [Record("queued", 1, "w", 0), Record("executing", 2, "w", 1), Record("queued", 9, "w", 7, left_out=20)]
    picture = route(LIFECYCLE, "task 7", [*records, Record("executing", 10, "w", 8)])
    assert sorted(map(int, re.findall(r"\((\d+): ", mermaid(picture)))) == [1, 2, 24]
    assert "queued → executing → (20 left out) → queued → executing" in picture.about


def test_history_that_leaves_the_table_is_refused():
    """A history that leaves the table is refused, and the error names the step."""
    with pytest.raises(ConfigurationError, match="from queued to complete is no row"):
        route(LIFECYCLE, "task 7", [Record("queued", 1, "w", 0), Record("complete", 2, "w", 1)])


# Colours -------------------------------------------------------------------------------------------------------------


def contrast(one, other):
    """Return the contrast of two colours as defined by WCAG: 1 to 21."""

    def light(colour):
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, bright = sorted((light(one), light(other)))
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(("tones", "ink", "paper"), [(LIGHT, INK[0], "#ffffff"), (DARK, INK[1], "#0d1117")])
def test_colours_have_enough_contrast(tones, ink, paper):
    """Each shade has its colours for light, dark and terminals, and text has enough contrast."""
    assert set(tones) == set(TERMINAL) == set(SHADES) > set(Kind)
    assert contrast(ink, paper) > 4.5
    for tone in tones.values():
        assert contrast(tone.text, tone.fill) > 4.5
        assert contrast(tone.line, paper) > 3  # of lines, and of words that repeat what stands elsewhere
    assert len({tone.line for tone in tones.values()}) == len(SHADES)


@pytest.mark.parametrize("name", PICTURES)
def test_drawings_have_title_description_and_dark_colours(name):
    """Each drawing has a title, a description and colours for dark pages."""
    picture = PICTURES[name]()
    root = ET.fromstring(draw(picture, "svg"))  # noqa: S314 -- our own
    assert root.get("role") == "img"
    assert [(part.tag, part.text) for part in list(root)[:2]] == [
        (f"{SVG}title", picture.title),
        (f"{SVG}desc", picture.about),
    ]
    assert "prefers-color-scheme: dark" in root.find(f"{SVG}style").text
    assert isinstance(picture, Graph | Workflow) == ("dot" in formats(picture))


def test_unknown_format_is_refused_with_the_list_of_formats():
    """An unknown format, and a sequence in DOT, are refused with the list of formats."""
    with pytest.raises(ConfigurationError, match="no format 'png': there are mermaid, dot, svg, svg-narrow"):
        draw(PICTURES["lifecycle"](), "png")
    with pytest.raises(ConfigurationError, match="dot cannot show a sequence"):
        draw(PICTURES["storage"](), "dot")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_drawing_of_one_theme_has_the_colours_of_this_theme(theme):
    """A drawing for one theme asks nothing of the reader's system, and its last rules are those of the theme."""
    for name in PICTURES:
        drawing = for_theme(draw(PICTURES[name](), "svg"), theme)
        style = ET.fromstring(drawing).find(f"{SVG}style").text  # noqa: S314 -- our own
        tones = {"light": LIGHT, "dark": DARK}[theme]
        assert "@media" not in style
        assert re.findall(r"\.final rect \{ fill: (#\w+)", style)[-1] == tones[Kind.FINAL].fill
