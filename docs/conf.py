"""Configuration of the site: ``sphinx-build -W docs site``. A warning is an error."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "Lifecycle"
author = "The Lifecycle authors"
project_copyright = "the Lifecycle authors"
version = release = version_of("task-lifecycle")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "pictures",
    "root_pages",
]
exclude_patterns = ["recipes", "examples", "_extensions"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
# Prompts are not copied with the commands.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = "Lifecycle"
html_static_path = ["_static"]
html_css_files = ["lifecycle.css"]
html_favicon = "_static/favicon.svg"
html_theme_options = {"light_logo": "logo.svg", "dark_logo": "logo.svg", "source_directory": "docs/"}

# Docstrings of the code are used unchanged: a single backtick is code, or a name of the library.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
autoclass_content = "both"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
