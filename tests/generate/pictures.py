"""The pictures in `diagrams/`, each in every format, and the page that lists them."""

import sys

from generate import screens
from generate.pages import ROOT, WRITE

from lifecycle.consumer.demo.gallery import FILE_SUFFIXES, PICTURES, draw, formats
from lifecycle.diagrams.drawing.parts import for_theme

FOLDER = ROOT / "diagrams"
THEMES = ("light", "dark")
"""The README shows the lifecycle and the demo in the colours of the page, not of the reader's system: a file for each."""
README = """# Pictures

This page lists the pictures of the tables and scenarios. One command makes them from the tables and from recorded runs,
and the tests compare them byte for byte:

```sh
{write}
```

![The lifecycle of a task](lifecycle.svg)

| picture | shows |
| --- | --- |
{rows}

`demo.light.svg`, `demo.dark.svg` and the narrow ones show the end of `lifecycle demo` in a terminal, with the pids of no
real process.

The scenarios are those of `lifecycle demo`. Real queues, workers and handlers play each scenario on a virtual clock, and
a tracer records it at the store. `lifecycle diagram NAME --format mermaid|dot|svg|svg-narrow` prints a picture,
`lifecycle diagram ID` the path of one task, `lifecycle diagram --workflow ID` a workflow, `lifecycle diagram --table module:TABLE` a table of your own.
"""


def files():
    """Return the text of each file in the folder, by name."""
    made, rows = {}, []
    for name, make in PICTURES.items():
        picture = make()
        links = []
        for form in formats(picture):
            file = f"{name}.{FILE_SUFFIXES[form]}"
            made[file] = draw(picture, form)
            links.append(f"[{form}]({file})")
        rows.append(f"| `{name}`: {', '.join(links)} | {picture.title} |")
    for form in "svg", "svg-narrow":
        for theme in THEMES:
            file = f"lifecycle.{FILE_SUFFIXES[form].replace('svg', f'{theme}.svg')}"
            made[file] = for_theme(made[f"lifecycle.{FILE_SUFFIXES[form]}"], theme)
    for theme in THEMES:
        made[f"demo.{theme}.svg"] = screens.svg(theme)
        made[f"demo.narrow.{theme}.svg"] = screens.svg(theme, screens.NARROW_COLUMNS)
    made["README.md"] = README.format(write=WRITE, rows="\n".join(rows))
    return made


def write():
    """Make all pictures, and delete files that are no pictures any more."""
    FOLDER.mkdir(exist_ok=True)
    made = files()
    for old in FOLDER.iterdir():
        if old.name not in made:
            old.unlink()
            sys.stdout.write(f"diagrams/{old.name} deleted\n")
    for name, text in made.items():
        path = FOLDER / name
        if not path.exists() or path.read_bytes() != text.encode():
            path.write_bytes(text.encode())
            sys.stdout.write(f"diagrams/{name} written\n")
