"""Extension of the site: pictures of `diagrams/` follow the theme of the page, and the width of the window.

A picture has the colours of both themes, and chooses by the reader's system. A reader can choose another theme for the
site. So each picture becomes two, each in the colours of one theme, and the style sheet of the theme shows the right
one. Where there is a narrow form, small windows get it.
"""

from html import escape
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

from lifecycle.diagrams.drawing.parts import DARK_PAGES, for_theme

THEMES = ("light", "dark")
NARROW = "(max-width: 600px)"
"""Windows in which the narrow form is shown."""


def setup(app: Sphinx) -> dict[str, bool]:
    """Take over the images of the site."""
    app.add_node(nodes.image, override=True, html=(visit_image, depart_image))
    app.connect("build-finished", write_themes)
    return {"parallel_read_safe": True}


def is_diagram(path: Path) -> bool:
    """Return whether a file is a picture with the colours of both themes."""
    return path.parent.name == "diagrams" and path.suffix == ".svg"


def visit_image(self: HTML5Translator, node: nodes.image) -> None:
    """Write a picture once for each theme, in a `picture` element; any other image as Sphinx does."""
    source = Path(self.builder.srcdir, node["uri"])
    if not is_diagram(source):
        HTML5Translator.visit_image(self, node)
        return
    folder, alt = self.builder.imgpath, escape(node.get("alt", ""))
    narrow = source.with_suffix(".narrow.svg").exists()
    for theme in THEMES:
        small = f'<source media="{NARROW}" srcset="{folder}/{source.stem}.narrow.{theme}.svg">' if narrow else ""
        look = f"diagram only-{theme}{'' if narrow else ' wide'}"
        self.body.append(
            f'<picture class="{look}">{small}<img alt="{alt}" src="{folder}/{source.stem}.{theme}.svg"></picture>\n'
        )
    raise nodes.SkipNode


def depart_image(self: HTML5Translator, node: nodes.image) -> None:
    """End an image as Sphinx does."""
    HTML5Translator.depart_image(self, node)


def write_themes(app: Sphinx, error: Exception | None) -> None:
    """Write the pictures of each theme beside the other images."""
    if error is not None or app.builder.format != "html":
        return
    folder = Path(app.outdir, app.builder.imagedir)
    for image in {Path(app.srcdir, uri).resolve() for uri in app.env.images}:
        for source in (image, image.with_suffix(".narrow.svg")):
            if not is_diagram(source) or not source.exists():
                continue
            drawing = source.read_text(encoding="utf-8")
            if DARK_PAGES not in drawing:
                raise AssertionError(f"{source.name} has no colours for dark pages")
            for theme in THEMES:
                (folder / f"{source.stem}.{theme}.svg").write_text(for_theme(drawing, theme), encoding="utf-8")
