"""Configuration of the site: ``sphinx-build -W docs site``. A warning is an error."""

import re
from importlib.metadata import version as version_of

from sphinx.application import Sphinx

project = "Lifecycle"
author = "The Lifecycle authors"
project_copyright = "the Lifecycle authors"
version = release = version_of("task-lifecycle")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton", "sphinxcontrib.mermaid"]
exclude_patterns = ["recipes"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
myst_fence_as_directive = ["mermaid"]
# Prompts are not copied with the commands.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = "Lifecycle"
html_theme_options = {"source_directory": "docs/"}

# Docstrings of the code are used unchanged: a single backtick is code, or a name of the library.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
autoclass_content = "both"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100


def setup(app: Sphinx) -> None:
    """Make CONTRIBUTING.md, which stands above this folder, the page `contributing` of the site."""
    app.connect("source-read", _include_contributing)


def _include_contributing(app: Sphinx, page: str, text: list[str]) -> None:
    if page == "contributing":
        text[0] = (app.srcdir.parent / "CONTRIBUTING.md").read_text()
    text[0] = re.sub(r"(?<=\()(?:\.\./)+CONTRIBUTING\.md", "/contributing.md", text[0])
