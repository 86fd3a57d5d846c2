"""Sphinx's configuration: `make docs` builds docs/ into build/docs/html, with every warning an error.

Internal links and references are checked by the build. External ones are not: it uses no network. Nor do the
pages: formulas are MathML, which browsers draw themselves.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "_ext"))
sys.path.insert(0, str(HERE.parent))

import torch  # noqa: E402

import torchbcd  # noqa: E402

project = "torchbcd"
author = "the authors of torchbcd"
project_copyright = author
release = version = torchbcd.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "breathe",
    "from_the_library",
    "mathml",
]

root_doc = "index"
exclude_patterns = ["_ext", "_static", "gallery", "results/training.json", "requirements.txt"]
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["mathml.css"]
html_theme = "furo"
html_title = "torchbcd"
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"sidebar_hide_name": False, "navigation_with_keys": True}
html_extra_path: list[str] = []

# Markdown: GitHub's anchors, so that a link works there and here.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
myst_links_external_new_tab = False
# Files of the repository that are no pages: what a link to them becomes is from_the_library's affair.

# Python: the docstrings, in Google's style, with two sections of this project's own.
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Source", "notes_style")]
napoleon_use_ivar = True
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_class_signature = "mixed"
autosummary_generate = False
add_module_names = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100

# What belongs to others, whose inventories would have to be fetched.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(torch|nn|typing|collections|numpy|sklearn|scipy|os|io)(\..*)?"),
    (r"cpp:identifier", r"(torch|at|c10|std)(::.*)?|.*_t|torchbcd|OptionTable|TrainedMlp"),
    (r"std:ref", r"(class|struct)torchbcd_.*"),
]

# The gallery: scripts of docs/gallery, all of them run by every build.
sphinx_gallery_conf = {
    "examples_dirs": str(HERE / "gallery"),
    "gallery_dirs": "auto_gallery",
    "filename_pattern": r"plot_",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_signature": False,
    "show_memory": False,
    "write_computation_times": False,
    "min_reported_time": 60,
    "abort_on_example_error": True,
    "image_scrapers": ("matplotlib",),
    "remove_config_comments": True,
    "default_thumb_file": None,
}
torch.set_num_threads(1)  # nets as small as the gallery's only lose time to a second thread
warnings.filterwarnings("ignore", message=".*TorchScript.*", category=FutureWarning)

# C++: Doxygen reads the public headers, Breathe puts them on a page.
breathe_default_project = "torchbcd"
breathe_domain_by_extension = {"h": "cpp"}
