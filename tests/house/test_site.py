"""The site: its pictures follow the theme of the page, and its logo is a drawing that fits both themes."""

import re
import subprocess
import sys
from importlib.util import find_spec

import pytest
from generate.pages import DOCS, ROOT

needs_sphinx = pytest.mark.skipif(
    find_spec("sphinx") is None or find_spec("myst_parser") is None, reason="the extra `docs` is not installed"
)
CONFIGURATION = """
import sys
sys.path.insert(0, {folder!r})
extensions = ["myst_parser", "pictures"]
"""


@needs_sphinx
def test_pictures_of_the_site_have_the_colours_of_the_theme(tmp_path):
    """The site shows a picture in the colours of the page's theme, and its narrow form in a narrow window."""
    pages, site = tmp_path / "docs", tmp_path / "site"
    for folder in (pages, tmp_path / "diagrams"):
        folder.mkdir()
    for name in ("lifecycle.svg", "lifecycle.narrow.svg", "scenario-add-1-2.svg"):
        (tmp_path / "diagrams" / name).write_bytes((ROOT / "diagrams" / name).read_bytes())
    (pages / "conf.py").write_text(CONFIGURATION.format(folder=str(DOCS / "_extensions")))
    (pages / "index.md").write_text(
        "# A\n\n![B](../diagrams/lifecycle.svg)\n\n![C](../diagrams/scenario-add-1-2.svg)\n"
    )
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", str(pages), str(site)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    html = (site / "index.html").read_text()
    for theme in ("light", "dark"):
        assert f'<picture class="diagram only-{theme}"><source media="(max-width: 600px)"' in html
        assert f'<picture class="diagram only-{theme} wide"><img alt="C"' in html
        for name in ("lifecycle", "lifecycle.narrow"):
            made = (site / "_images" / f"{name}.{theme}.svg").read_text()
            assert f"_images/{name}.{theme}.svg" in html
            assert made == (ROOT / "diagrams" / f"{name}.{theme}.svg").read_text()


def test_logo_has_no_colour_of_a_page():
    """The logo and the favicon are one small drawing, whose colours are neither black nor white."""
    logo, icon = ((DOCS / "_static" / name).read_text() for name in ("logo.svg", "favicon.svg"))
    assert logo == icon
    assert len(logo) < 1_000
    colours = set(re.findall(r"#[0-9a-f]{3,6}\b", logo))
    assert colours
    assert not colours & {"#000", "#000000", "#fff", "#ffffff"}
