"""The pictures in `diagrams/`: each in every format, and a page that lists them."""

import sys

from generate.pages import ROOT, WRITE

from lifecycle.consumer.demo.gallery import ENDINGS, PICTURES, draw, formats

FOLDER = ROOT / "diagrams"
README = """# Pictures

Made from the tables and from recorded runs by one command, and compared byte for byte in the tests:

```sh
{write}
```

![The lifecycle of a task](lifecycle.svg)

| picture | shows |
| --- | --- |
{rows}

Scenarios are those of `lifecycle demo`, each played by real queues, workers and handlers on a clock that stands still, and
recorded at the store. `lifecycle diagram NAME --format mermaid|dot|svg` prints any of them, `lifecycle diagram ID` the way
that one task took, `lifecycle diagram --table module:TABLE` a table of your own.
"""


def files():
    """Each file in the folder, and what is to be in it."""
    made, rows = {}, []
    for name, make in PICTURES.items():
        picture = make()
        links = []
        for form in formats(picture):
            file = f"{name}.{ENDINGS[form]}"
            made[file] = draw(picture, form)
            links.append(f"[{form}]({file})")
        rows.append(f"| `{name}`: {', '.join(links)} | {picture.title} |")
    made["README.md"] = README.format(write=WRITE, rows="\n".join(rows))
    return made


def write():
    """Make all pictures; delete what is no picture any more."""
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
