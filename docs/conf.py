"""How the site is built: ``make docs``. Nothing is fetched, no warning is allowed."""

import doctest
import re
import sys
from pathlib import Path

from matplotlib.sphinxext.plot_directive import TEMPLATE

import ptsne

DOCS = Path(__file__).parent
BUILD = DOCS / "_build"
sys.path.insert(0, str(DOCS / "_ext"))

import figures
import gallery

project = "ptsne"
author = "ptsne developers"
copyright = author
version = release = ptsne.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "comparison",
    "computed",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
    "matplotlib.sphinxext.plot_directive",
    "executed",
    "figures",
    "links",
    "mathml",
]
exclude_patterns = ["_build", "_ext", "_templates", "images"]
templates_path = ["_templates"]
default_role = "autolink"
pygments_style = "tango"

# --- pages ----------------------------------------------------------------------------------------

myst_enable_extensions = [
    "amsmath",
    "attrs_block",
    "attrs_inline",
    "colon_fence",
    "deflist",
    "dollarmath",
    "substitution",
]
myst_substitutions = figures.found()
myst_heading_anchors = 4

plot_formats = [("png", 144)]
plot_html_show_formats = False
plot_html_show_source_link = False
plot_include_source = True
plot_rcparams = {"figure.figsize": (7, 4.4), "figure.constrained_layout.use": True}
# What a plot shows as its source it has run already; see _ext/executed.py. Long code is folded, so
# that a page can be read without it.
FOLDED_FROM = 11  # lines
plot_template = TEMPLATE.replace(
    "{{ source_code }}",
    f"""
{{% set is_folded = source_code.strip().splitlines() | length >= {FOLDED_FROM}
   and ">>>" in source_code %}}
{{% if is_folded %}}
.. raw:: html

   <details class="code"><summary>The code of this picture</summary>

{{% endif %}}
{{{{ source_code.replace('.. code-block:: python',
     '.. code-block:: python\\n   :class: run-by-plot', 1) }}}}
{{% if is_folded %}}
.. raw:: html

   </details>

{{% endif %}}
""",
)

# --- reference ------------------------------------------------------------------------------------

autosummary_generate = True
autodoc_typehints = "none"  # the docstrings say more
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_use_plots = False

# --- gallery --------------------------------------------------------------------------------------

# Examples write their pictures beside themselves: they are run where that is no litter.
EXAMPLES = BUILD / "examples"
gallery.copy(DOCS.parent / "examples", EXAMPLES, DOCS / "gallery")


def forget(made, sources):
    """Remove what an earlier build has made from sources that are gone."""
    for path in made:
        if path.stem not in sources:
            path.unlink()


examples = {path.stem for path in (DOCS.parent / "examples").glob("*.py")}
forget(EXAMPLES.glob("*.py"), examples)
forget((DOCS / "gallery").glob("plot_*.rst"), examples)
words = set((DOCS / "reference" / "index.md").read_text(encoding="utf-8").split())
forget((DOCS / "reference" / "generated").glob("*.rst"), {f"ptsne.{word}" for word in words})

sphinx_gallery_conf = {
    "examples_dirs": str(EXAMPLES),
    "gallery_dirs": "gallery",
    "filename_pattern": gallery.pattern(EXAMPLES),
    "ignore_pattern": r"label_flip_rate",
    "within_subsection_order": "gallery.order",
    "abort_on_example_error": True,
    "backreferences_dir": "reference/generated/backreferences",
    "doc_module": ("ptsne",),
    "log_level": {"backreference_missing": "debug"},
    "download_all_examples": False,
    "image_srcset": ["2x"],
    "thumbnail_size": (640, 420),
    "min_reported_time": 0,
    "remove_config_comments": True,
    "reset_modules": ("matplotlib", "gallery.reset"),
    "show_signature": False,
    "write_computation_times": False,
}

# --- doctests -------------------------------------------------------------------------------------

doctest_default_flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
doctest_test_doctest_blocks = "default"
# What examples write goes with them, and so do their figures; those that need a library which is
# not there are left out. An example that makes ptsne warn is a bad example.
doctest_global_setup = """
import os as _os, tempfile as _tempfile, warnings as _warnings
_warnings.filterwarnings("error", category=UserWarning)
from importlib.util import find_spec as _find_spec
def is_missing(*libraries):
    return not all(map(_find_spec, libraries))
_home, _folder = _os.getcwd(), _tempfile.TemporaryDirectory()
_os.chdir(_folder.name)
"""
doctest_global_cleanup = """
import matplotlib.pyplot as _plt
_plt.close("all")
_os.chdir(_home)
_folder.cleanup()
"""

# --- theme ----------------------------------------------------------------------------------------

html_theme = "pydata_sphinx_theme"
html_title = "ptsne"
html_static_path = ["_static"]
html_css_files = ["ptsne.css"]
html_sidebars = {"index": [], "start": []}
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "ptsne"},
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}


def escape_stars(app, what, name, *about):
    """A shape such as (N, *input shape) is not the beginning of something emphasised."""
    lines = about[-1]
    lines[:] = [re.sub(r"(?<=[ (])\*(?=\w+[ _]shape)", r"\\*", line) for line in lines]


def setup(app):
    app.connect("autodoc-process-docstring", escape_stars)
    app.connect("doctree-resolved", gallery.box_pictures)
