"""How the site is built: ``sphinx-build -W docs site``. A warning is an error."""

from importlib.metadata import version as version_of

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

# The code's own docstrings, as they are: a single backtick is code, or a name of the library where there is one.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
autoclass_content = "both"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
