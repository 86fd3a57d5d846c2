"""README and docs/ as their readers use them: blocks of code are run or checked, links inside lead somewhere.

Blocks are told by their language. Python is run, page by page in one namespace, in the order of the page; C++
is compiled, as far as to its meaning; of commands it is checked that targets, scripts and their options are
there; `text` is output. What cannot be run has `<!-- test: not run (why) -->` above it, what raises `<!-- test:
raises -->`, and the error in the block of text after it.
"""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import nn

import torchbcd

ROOT = Path(__file__).resolve().parents[2]
DOCS = [path for path in sorted((ROOT / "docs").rglob("*.md")) if "auto_gallery" not in path.parts]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
FENCE = re.compile(r"^```(.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- test: not run \(.+\) -->\s*$")
RAISES = re.compile(r"<!-- test: raises -->\s*$")


class Block(NamedTuple):
    """A fenced block, and the line that its first line of code is on."""

    language: str
    text: str
    line: int
    run: bool
    raises: bool


def name_of(page):
    return str(page.relative_to(ROOT))


def blocks(page):
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        before = text[: found.start()]
        run, raises = not NOT_RUN.search(before), bool(RAISES.search(before))
        yield Block(found[1].strip(), found[2], before.count("\n") + 2, run, raises)


def with_language(*languages):
    """The pages that have such blocks, as parameters."""
    pages = [p for p in PAGES if any(block.language in languages and block.run for block in blocks(p))]
    return pytest.mark.parametrize("page", pages, ids=name_of)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_is_of_a_kind_that_is_checked(page):
    for block in blocks(page):
        known = block.language in ("python", "cpp", "cmake", "", "text") or block.language.startswith("{")
        assert known, f"{name_of(page)}:{block.line}: what is {block.language!r}?"


# --- Python


def images():
    """What most pages speak of: data as wide as MNIST's, and a model with its optimizer."""
    x, y = torch.rand(200, 784), torch.randint(10, (200,))
    model = nn.Sequential(nn.Linear(784, 30), nn.ReLU(), nn.Linear(30, 10))
    loader = list(zip(x.split(100), y.split(100), strict=True))
    return {"x": x, "y": y, "model": model, "loader": loader, "optimizer": torchbcd.RelaxedBCD(model)}


def small_problem():
    """Few rows, which a sweep needs next to no time for."""
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    x, y = torch.randn(20, 4).double(), torch.randint(2, (20,))
    return {"x": x, "y": y, "model": model, "optimizer": torchbcd.BCD(model)}


def frameworks():
    """The recipes are run whole in test_frameworks.py; here the text of the page is."""
    from sklearn.model_selection import cross_val_score

    x = torch.randn(60, 5).double().numpy()
    return {
        "lightning": pytest.importorskip("lightning"),
        "skorch": pytest.importorskip("skorch"),
        "cross_val_score": cross_val_score,
        **{"x": x, "y": (x[:, 0] > 0).astype(int), "x_new": x[:3]},
    }


PREPARED = {"docs/theory.md": small_problem, "docs/using.md": frameworks}


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
@with_language("python")
def test_python(page, tmp_path, monkeypatch, one_thread):
    """Line numbers are those of the page, in errors and for TorchScript, which reads the source again."""
    torch.manual_seed(0)
    monkeypatch.chdir(tmp_path)
    names = {"torch": torch, "nn": nn, "torchbcd": torchbcd, **PREPARED.get(name_of(page), images)()}
    lines = [""] * (page.read_text(encoding="utf-8").count("\n") + 2)
    found = [block for block in blocks(page) if block.run]
    python = [block for block in found if block.language == "python"]
    for block in python:
        own = block.text.splitlines()
        lines[block.line - 1 : block.line - 1 + len(own)] = own
    source = tmp_path / f"{page.stem}_blocks.py"
    source.write_text("\n".join(lines), encoding="utf-8")
    for block in python:
        code = compile("\n" * (block.line - 1) + block.text, str(source), "exec")
        if not block.raises:
            exec(code, names)
            continue
        after = found[found.index(block) + 1]
        assert after.language == "text", f"{name_of(page)}:{block.line}: what does it raise?"
        with pytest.raises((Exception, Warning)) as raised:
            exec(code, names)
        expected = ".*".join(re.escape(" ".join(part.split())) for part in after.text.split("…"))
        said = " ".join(f"{type(raised.value).__name__}: {raised.value}".split())
        assert re.fullmatch(expected, said), said


GALLERY = sorted((ROOT / "docs/gallery").glob("plot_*.py"))


@pytest.mark.parametrize("script", GALLERY, ids=lambda path: path.stem)
def test_gallery(script, monkeypatch, one_thread):
    """The scripts as they are, in their folder, as `make docs` runs them to put their pictures into the pages."""
    monkeypatch.chdir(script.parent)
    import matplotlib.pyplot as plt

    plt.switch_backend("Agg")
    monkeypatch.setattr(plt, "show", lambda: None)
    runpy.run_path(str(script))
    assert plt.get_fignums()
    plt.close("all")


# --- C++ and CMake


def test_cpp(tmp_path):
    """All of them in one file, a function a page, through the compiler's front end."""
    from torch.utils.cpp_extension import include_paths

    includes, functions = {"#include <iostream>"}, []
    for page in PAGES:
        own = [block for block in blocks(page) if block.language == "cpp" and block.run]
        lines = []
        for block in own:
            lines.append(f'#line {block.line} "{name_of(page)}"')
            for line in block.text.splitlines():
                if line.startswith("#include"):
                    includes.add(line)
                lines.append("" if line.startswith("#include") else line)
        if own:
            arguments = ", ".join(f"at::Tensor {name}" for name in "xyab")
            functions.append(f"void page_{len(functions)}({arguments}) {{\n" + "\n".join(lines) + "\n}\n")
    assert functions
    source = tmp_path / "blocks.cpp"
    source.write_text("\n".join([*sorted(includes), *functions]), encoding="utf-8")
    folders = [Path(torchbcd.__file__).parent / "include", *include_paths()]
    flags = ["-std=c++20", "-fsyntax-only", "-w", *(f"-I{folder}" for folder in folders)]
    command = [os.environ.get("CXX", "c++"), *flags, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:3000]


@with_language("cmake")
def test_cmake(page):
    """The commands are those of the example, which test_cpp.py builds."""
    example = (ROOT / "examples/libtorch/CMakeLists.txt").read_text()
    for block in blocks(page):
        if block.language == "cmake":
            for command in re.findall(r"^\w+(?=\()", block.text, re.MULTILINE):
                assert f"{command}(" in example, command
            assert "find_package(TorchBCD REQUIRED)" in block.text
            assert "TorchBCD::TorchBCD" in block.text


# --- Commands


def check_command(words, where):
    """That what a command names is there."""
    words = words[next(i for i, word in enumerate(words) if not re.match(r"[A-Z_]+=", word)) :]
    program, *arguments = words
    if program == "make":
        makefile = (ROOT / "Makefile").read_text()
        for target in (word for word in arguments if "=" not in word):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{where}: no target {target}"
    elif program in ("python", "torchrun") and arguments[:1] != ["-c"]:
        scripts = [ROOT / word for word in arguments if word.endswith(".py")]
        assert scripts, where
        assert all(script.exists() for script in scripts), f"{where}: no {scripts}"
        source = "".join(path.read_text() for path in scripts[0].parent.glob("*.py"))
        for option in arguments[arguments.index(str(scripts[0].relative_to(ROOT))) + 1 :]:
            assert not option.startswith("--") or f'"{option}"' in source, f"{where}: no option {option}"
    elif program == "pip":
        assert arguments[0] == "install", where
    else:
        assert program in ("cmake", "git", "cd", "python", "build/torchscript/run_script"), f"{where}: {program}?"


@with_language("")
def test_commands(page):
    for block in blocks(page):
        if block.language or not block.run:
            continue
        for number, line in enumerate(block.text.replace("\\\n", "").splitlines()):
            where = f"{name_of(page)}:{block.line + number}"
            words = shlex.split(line, comments=True)
            if not words:
                continue
            if (ROOT / words[0]).is_dir() and words[0].endswith("/"):  # a list of folders
                continue
            check_command(words, where)


# --- Links


def anchors(page):
    """Those that GitHub and MyST give to headings."""
    found = set()
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        heading = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).strip().lower()
        found.add(re.sub(r"[^\w\- ]", "", heading).replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links(page):
    """External ones are not looked at: nothing here uses a network."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target) or "auto_gallery" in target:
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), f"{name_of(page)}: no {target}"
        if anchor:
            assert anchor in anchors(other), f"{name_of(page)}: no {target}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files(page):
    """What a page names of the repository is there."""
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"(?<![\w/.-])(?:csrc|tests|benchmarks|examples|docs|cmake)/[\w./-]*\w", text):
        assert (ROOT / name).exists(), f"{name_of(page)}: no {name}"


def test_no_page_is_orphaned():
    """Every page of docs/ is in the index's tables of contents."""
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    listed = {
        line.strip()
        for block in re.findall(r"```\{toctree\}(.*?)```", index, re.DOTALL)
        for line in block.split("\n")
    }
    for page in DOCS:
        own = str(page.relative_to(ROOT / "docs").with_suffix(""))
        assert own in listed or own == "index", own


def test_the_docs_need_no_more_than_they_pin():
    pinned = (ROOT / "docs/requirements.txt").read_text().splitlines()
    assert all(re.fullmatch(r"#.*|[\w-]+==[\d.]+", line) for line in pinned)
    assert sys.version_info >= (3, 10)
