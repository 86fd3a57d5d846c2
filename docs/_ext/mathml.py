r"""Formulas as MathML, which browsers draw themselves: written by the build, so that readers fetch nothing.

latex2mathml knows the LaTeX that docstrings use, but for `\arg`. What it does not know it leaves as it stands,
backslash and all, which is an error of the build here.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError


def mathml(latex: str, display: str) -> str:
    """A formula's element; `display` is inline or block."""
    known = re.sub(r"\\arg(?![a-z])", r"\\operatorname{arg}", latex.strip())
    if "\\\\" in known and "\\begin" not in known:
        known = rf"\begin{{aligned}}{known}\end{{aligned}}"
    element = convert(known, display=display)
    unknown = re.search(r">\s*(\\[^<]*)<", element)
    if unknown:
        raise ExtensionError(f"latex2mathml does not know {unknown[1]} (got {latex})")
    return str(element)


def inline(translator: Any, node: nodes.math) -> None:
    """In a line of text."""
    translator.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def block(translator: Any, node: nodes.math_block) -> None:
    """On lines of its own."""
    translator.body.append(f'<div class="math">{mathml(node.astext(), "block")}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx's hook."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
