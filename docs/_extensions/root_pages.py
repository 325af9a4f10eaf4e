"""Extension of the site: files that stand above the folder `docs` are pages of it."""

import re

from sphinx.application import Sphinx

FILES = {"contributing": "CONTRIBUTING.md", "changelog": "CHANGELOG.md"}
"""Page → file in the root of the repository."""


def setup(app: Sphinx) -> dict[str, bool]:
    """Read the files in place of their pages, and lead links of other pages there."""
    app.connect("source-read", _include)
    return {"parallel_read_safe": True}


def _include(app: Sphinx, page: str, text: list[str]) -> None:
    if page in FILES:
        path = app.srcdir.parent / FILES[page]
        text[0] = path.read_text(encoding="utf-8").replace("](docs/", "](/")
        app.env.note_dependency(str(path))
    for name, file in FILES.items():
        text[0] = re.sub(rf"(?<=\()(?:\.\./)+{re.escape(file)}", f"/{name}.md", text[0])
