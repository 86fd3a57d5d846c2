"""Directives whose content is read off the library: options, TorchScript's methods, operators, C++.

    ```{options-of} BCD
    ```

is the table of the options' rows in csrc/optimizers, `script-methods` the methods of a class of torch.classes,
`operators` the schemas of torch.ops.torchbcd, `cpp-reference` what Doxygen reads in csrc/include/torchbcd.
Nothing of it is written twice, and nothing of it is kept in a file.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, ClassVar

import torch
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from torch import nn

import torchbcd

ROOT = Path(__file__).resolve().parents[2]
HEADERS = ROOT / "csrc/include/torchbcd"
DOXYGEN = ROOT / "build/doxygen"
METHODS = {
    "BCD": torchbcd.BCD,
    "RelaxedBCD": torchbcd.RelaxedBCD,
    "DLAM": torchbcd.DLAM,
    "DLADMM": torchbcd.DLADMM,
}
logger = logging.getLogger(__name__)


def small(name: str) -> Any:
    """An optimizer of that name over a small net."""
    return METHODS[name](nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)))


def cell(text: str) -> str:
    """A text as a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", r"\|")


def code(text: object) -> str:
    """A name or a value as code."""
    return f"`{cell(str(text))}`"


class OptionsOf(SphinxDirective):
    """The options of an optimizer, a row each."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Make the table."""
        lines = ["| option | of | default | must be | what it is |", "|---|---|---|---|---|"]
        for row in small(self.arguments[0])._object.documented_options():
            allowed = ", ".join(code(choice) for choice in row["choices"]) or cell(row["range"])
            if isinstance(row["value"], bool):
                allowed = "`True` or `False`"
            elif row["name"].endswith("_regularizer"):
                allowed = "a regulariser, or none"
            owner = "each layer" if row["of_layers"] else "all, when it is made" if row["at_start"] else "all"
            value = row["value"]
            default = code(f"{value:g}" if isinstance(value, float) else value) if value != "" else ""
            lines.append(f"| {code(row['name'])} | {owner} | {default} | {allowed} | {cell(row['help'])} |")
        return self.parse_text_to_nodes("\n".join(lines))


class ScriptMethods(SphinxDirective):
    """The methods of a class of torch.classes.torchbcd, as TorchScript sees them."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Make the list."""
        name = self.arguments[0]
        script = small(name).script_object() if name in METHODS else torch.classes.torchbcd.RidgeHead(2)
        lines = ["```text"]
        for method in script._method_names():
            if method not in ("__getstate__", "__setstate__"):
                schema = str(script._get_method(method).schema)
                own, _, rest = schema.partition("(")
                rest = re.sub(r" _\d+", "", rest.partition(" _0")[2].removeprefix(", ")).replace(
                    "NoneType", "None"
                )
                lines.append(f"{own}({rest}")
        return self.parse_text_to_nodes("\n".join([*lines, "```"]))


class Operators(SphinxDirective):
    """The schemas of the documented operators."""

    def run(self) -> list[nodes.Node]:
        """Make the list."""
        names = torchbcd.functional.__all__
        schemas = [str(getattr(torch.ops.torchbcd, name).default._schema) for name in names]
        return self.parse_text_to_nodes("\n".join(["```text", *schemas, "```"]))


class CppReference(SphinxDirective):
    """Entities of the public headers: a kind and names, such as `class torchbcd::BCD`."""

    has_content = True
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        """Have Breathe show them, or say why not."""
        if not self.config.torchbcd_has_doxygen:
            return self.parse_text_to_nodes("*Left out of this build: there is no Doxygen on the machine.*")
        lines = ["```{eval-rst}"]
        for entry in self.content:
            kind, name = entry.split(maxsplit=1)
            lines.append(f".. doxygen{kind}:: {name}")
            if kind in ("class", "struct"):
                lines.append("   :members:")
            if kind == "file":
                lines.append("   :sections: func")
            lines.append("")
        return self.parse_text_to_nodes("\n".join([*lines, "```"]))


def mark_up(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Make of a docstring, which is written to be read as it is, what Sphinx reads.

    Norms and absolute values, |x|, are no substitutions, but in code and mathematics; a page of docs/ is a link.
    """
    math_indent = None
    for number, line in enumerate(lines):
        if re.match(r"\s*\w+_(, \w+_)+: ", line):  # attributes that share a text: to Sphinx a type and a name
            names, colon, text = line.partition(": ")
            line = lines[number] = names.replace(", ", ",") + colon + text
        indent = len(line) - len(line.lstrip())
        if math_indent is not None and line.strip() and indent <= math_indent:
            math_indent = None
        if line.lstrip().startswith(".. math::"):
            math_indent = indent
        if math_indent is None and not line.lstrip().startswith((">>>", "...", ".. ")):
            line = re.sub(r"(``)?docs/([\w/]+)\.md(``)?", r":doc:`docs/\2.md </\2>`", line)
            parts = re.split(r"(``.*?``|`.*?`)", line)
            lines[number] = "".join(p if p.startswith("`") else p.replace("|", r"\|") for p in parts)


def keep_colons(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Napoleon takes what is before a colon in a property's first line for a type; there are none here."""
    if what == "property" and ":" in lines[0]:
        lines[0] = f": {lines[0]}"


def run_doxygen(app: Sphinx, config: Config) -> None:
    """Read the public headers, where Doxygen is there."""
    config.torchbcd_has_doxygen = shutil.which("doxygen") is not None
    config.breathe_projects = {"torchbcd": str(DOXYGEN / "xml")}
    if not config.torchbcd_has_doxygen:
        logger.info("no Doxygen: the C++ reference is left out")
        return
    DOXYGEN.mkdir(parents=True, exist_ok=True)
    settings = {
        "INPUT": HEADERS,
        "OUTPUT_DIRECTORY": DOXYGEN,
        "GENERATE_XML": "YES",
        "GENERATE_HTML": "NO",
        "GENERATE_LATEX": "NO",
        "QUIET": "YES",
        "WARN_IF_UNDOCUMENTED": "NO",
        "AUTOLINK_SUPPORT": "NO",
        "MARKDOWN_SUPPORT": "NO",
        "MACRO_EXPANSION": "YES",
        "EXPAND_ONLY_PREDEF": "YES",
        "PREDEFINED": '"TORCHBCD_API=" "TORCH_ARG(T, name)=T name"',
        "EXTRACT_PRIVATE": "NO",
        "SORT_MEMBER_DOCS": "NO",
    }
    text = "\n".join(f"{name} = {value}" for name, value in settings.items())
    done = subprocess.run(["doxygen", "-"], input=text, capture_output=True, text=True, check=True)
    for line in done.stderr.splitlines():
        logger.warning("doxygen: %s", line)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_config_value("torchbcd_has_doxygen", default=False, rebuild="env")
    app.connect("config-inited", run_doxygen, priority=100)
    app.connect("autodoc-process-docstring", mark_up, priority=100)
    app.connect("autodoc-process-docstring", keep_colons, priority=101)
    app.add_directive("options-of", OptionsOf)
    app.add_directive("script-methods", ScriptMethods)
    app.add_directive("operators", Operators)
    app.add_directive("cpp-reference", CppReference)
    return {"parallel_read_safe": True}
