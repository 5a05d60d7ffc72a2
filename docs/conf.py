"""How Sphinx builds these pages: `nox -s docs`. What a page has of the code is made here, from the code."""

import re
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
PROJECT = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "posenc"
author = "The posenc authors"
project_copyright = author
release = version = PROJECT["version"]
extensions = ["myst_parser"]
exclude_patterns = ["derived"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
smartquotes = False
html_theme = "furo"
html_title = f"posenc {release}"
html_show_sourcelink = False
html_show_sphinx = False
toc_object_entries_show_parents = "hide"
nitpicky = False  # types of torch and pandas stand in signatures, and their pages are elsewhere

PLACE = re.compile(r"^<!-- derived: ([\w-]+) -->$", re.MULTILINE)
"""A line of a page where something made from the code goes."""


def _fill(app, docname, source):
    from derived import MAKERS

    source[0] = PLACE.sub(lambda found: MAKERS[found[1]](), source[0])


def setup(app):
    """Called by Sphinx."""
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True}
