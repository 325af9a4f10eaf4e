"""Screens of the demo, as text and as pictures: the scenarios are replayed on a virtual clock, the same every time."""

import io
import re
from html import escape

from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

from lifecycle.consumer.demo.demo import SCENARIOS, ScenarioRunner, next_steps
from lifecycle.consumer.demo.replay import Replay
from lifecycle.consumer.demo.story import Story
from lifecycle.diagrams.palette import DARK, LIGHT, TERMINAL

DELAY_SECONDS, LEASE_SECONDS = 0.5, 3.0
"""As in a demo with short delays."""
FIRST_PID = 4711
PIDS = {scenario.title: FIRST_PID + number for number, scenario in enumerate(SCENARIOS[-2:], 1)}
"""The pid of the first consumer of the last scenarios: it has replaced the one before."""
THEMES = {"light": (LIGHT, "#f6f8fa", "#1f2328", "#59636e"), "dark": (DARK, "#0d1117", "#e6edf3", "#9198a1")}
"""The tones, and the colours of the background, of text, and of faint text."""
CHARACTER_WIDTH, LINE_HEIGHT, MARGIN, FONT_SIZE = 8, 18, 16, 13
"""Units of the drawing."""
COLUMNS = 118
"""So many that no cell of the table is folded."""
NARROW_COLUMNS = 60
"""For narrow pages."""
LAST_SCREEN = {"freeze"}
"""The names of the scenarios in the pictures."""
FIRST_PAGE = {"call", "retry later", "kill -9", "freeze"}
"""The names of the scenarios on the start page."""
FIRST_PAGE_COLUMNS = 80


def play(console, shown):
    """Replay all scenarios; print those whose names are `shown`, and the table of all."""
    silent, results = Console(quiet=True), []
    for number, scenario in enumerate(SCENARIOS, 1):
        story = Story(console if scenario.name in shown else silent, delay=DELAY_SECONDS, lease=LEASE_SECONDS)
        replay = Replay(
            observer=story, delay=DELAY_SECONDS, lease=LEASE_SECONDS, first_pid=PIDS.get(scenario.title, FIRST_PID)
        )
        try:
            with replay.log():
                runner = ScenarioRunner(replay, story)
                runner.run(number, scenario)
                results += runner.results()
        finally:
            replay.close()
    assert all(result.fault is None for result in results), results
    story = Story(console, delay=DELAY_SECONDS, lease=LEASE_SECONDS)
    story.close(results, next_steps(None, "lifecycle"))


def text():
    """Return a demo as plain text."""
    out = io.StringIO()
    play(Console(file=out, width=FIRST_PAGE_COLUMNS, color_system=None), FIRST_PAGE)
    return re.sub(" +$", "", out.getvalue(), flags=re.MULTILINE).strip("\n")


def style_of(style, theme):
    """Return the attributes of a text in SVG: its colour and its weight."""
    tones, _, ink, faint = THEMES[theme]
    colours = {Color.parse(name).number: tones[shade].line for shade, name in TERMINAL.items()}
    if theme == "light":  # dark enough on a light background
        colours = {Color.parse(name).number: tones[shade].text for shade, name in TERMINAL.items()}
    fill = faint if style.dim else ink if style.color is None else colours[style.color.number]
    return f'fill="{fill}"' + ' font-weight="bold"' * bool(style.bold)


def svg(theme, columns=COLUMNS):
    """Return the last screen as an SVG of a terminal, in a light or a dark theme."""
    out = io.StringIO()
    console = Console(file=out, width=columns, force_terminal=True, color_system="standard", legacy_windows=False)
    play(console, LAST_SCREEN)
    return drawn(out.getvalue(), columns, theme)


def drawn(output, columns, theme):
    """Return the output of a program, with escape sequences for its colours, as an SVG of a terminal."""
    console = Console(file=io.StringIO(), width=columns)
    lines = Text.from_ansi(output.strip("\n")).split("\n")
    width, height = 2 * MARGIN + columns * CHARACTER_WIDTH, 2 * MARGIN + len(lines) * LINE_HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"',
        f' font-size="{FONT_SIZE}" font-family="ui-monospace, Menlo, Consolas, \'DejaVu Sans Mono\', monospace">',
        "<title>The end of lifecycle demo, in a terminal</title>",
        f'<rect width="{width}" height="{height}" rx="8" fill="{THEMES[theme][1]}"/>',
    ]
    for row, line in enumerate(lines):
        y, column = MARGIN + row * LINE_HEIGHT + FONT_SIZE, 0
        for segment in line.render(console):
            for found in re.finditer(r"\S+(?: \S+)*", segment.text):  # columns stay in place in any font
                content, x = found[0], MARGIN + (column + found.start()) * CHARACTER_WIDTH
                look, length = style_of(segment.style or Style(), theme), len(content) * CHARACTER_WIDTH
                if set(content) == {"─"}:
                    parts.append(f'<path d="M{x} {y - 5}h{length}" stroke="{THEMES[theme][3]}"/>')
                else:
                    parts.append(f'<text x="{x}" y="{y}" textLength="{length}" {look}>{escape(content)}</text>')
            column += len(segment.text)
    return "\n".join([*parts, "</svg>", ""])
