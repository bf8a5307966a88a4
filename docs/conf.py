"""Sphinx configuration; the reference tables are written from the code at the start of a build."""

import logging
import sys
from pathlib import Path

from sphinx.application import Sphinx

from aiida_autopipe import __version__

sys.path.insert(0, str(Path(__file__).parent))
import reference_tables

# AiiDA's database migrations introduce themselves when they are imported.
logging.getLogger("alembic").setLevel(logging.WARNING)

project = "aiida-autopipe"
author = "aiida-autopipe contributors"
copyright = "2026, aiida-autopipe contributors"
version = release = __version__

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "reference/_generated"]

html_theme = "furo"
html_title = f"aiida-autopipe {release}"


def setup(app: Sphinx) -> None:
    """Write the generated tables before the pages that include them are read."""
    app.connect(
        "builder-inited",
        lambda _app: reference_tables.write(Path(__file__).parent / "reference" / "_generated"),
    )
