"""Configuration of the documentation: `make docs` writes plain files into docs/_build/html."""

import re
from importlib.metadata import version as version_of

from sphinx.application import Sphinx

project = "c2c_lightning"
author = "the authors of c2c_lightning"
copyright = "Apache License 2.0"
version = release = version_of("c2c-lightning")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build", "examples/**"]

html_theme = "furo"
html_title = f"c2c_lightning {version}"
html_show_sourcelink = False
html_copy_source = False
html_show_copyright = False

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # pages that are included begin below the first level

default_role = "code"  # docstrings write code between single backquotes
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
napoleon_use_ivar = True  # else attributes of dataclasses are described twice
napoleon_numpy_docstring = False

# Types of other packages: their documentation is not asked for, so that a build needs no network.
nitpick_ignore_regex = [("py:.*", r".*")]

copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True


def add_other_pages(app: Sphinx, page: str, source: list[str]) -> None:
    """List every page of this folder that the index does not name in its last section, so that none is lost."""
    if page != "index":
        return
    named = set(re.findall(r"^[\w/-]+$", source[0], re.MULTILINE))
    others = sorted(name for name in app.env.found_docs if name not in named | {"index"} and "/" not in name)
    source[0] = source[0].replace("OTHER_PAGES", "\n".join(others))


def setup(app: Sphinx) -> None:
    """Connect the hook."""
    app.connect("source-read", add_other_pages)
