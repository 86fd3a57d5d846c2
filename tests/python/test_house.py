"""The house: which room may use which, what an option's rows promise, how large a file may be."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from conftest import make_mlp

import torchbcd

ROOT = Path(__file__).resolve().parents[2]
# From the bottom up: a room uses itself and the rooms before it. The public headers are for all.
ROOMS = ["functors", "kernels", "linalg", "blocks", "sweeps", "optimizers", "doors"]
# What the public headers declare of a room, so that a lower room cannot use it by that way.
DECLARED_IN = {
    "split_optimizer.h": "optimizers",
    "bcd.h": "optimizers",
    "relaxed_bcd.h": "optimizers",
    "dlam.h": "optimizers",
    "dladmm.h": "optimizers",
    "ridge_head.h": "optimizers",
    "checkpoint.h": "optimizers",
    "mlp.h": "optimizers",
    "functional.h": "doors",
}
SOURCES = [path for path in (ROOT / "csrc").rglob("*") if path.suffix in (".h", ".cpp", ".cu", ".cuh")]


def room_of(include):
    folder, _, name = include.partition("/")
    return DECLARED_IN.get(name) if folder == "torchbcd" else folder if folder in ROOMS else None


def test_includes_go_down():
    upward = []
    for path in SOURCES:
        room = path.relative_to(ROOT / "csrc").parts[0]
        if room == "include":
            continue
        assert room in ROOMS, f"{path}: no room of that name"
        for include in re.findall(r'#include "([^"]+)"', path.read_text()):
            other = room_of(include)
            if other is not None and ROOMS.index(other) > ROOMS.index(room):
                upward.append(f"{path.relative_to(ROOT)} includes {include}")
    assert not upward


def test_public_headers_include_public_headers():
    for path in (ROOT / "csrc/include").rglob("*.h"):
        for include in re.findall(r'#include "([^"]+)"', path.read_text()):
            assert include.startswith("torchbcd/"), f"{path.name} includes {include}"


def test_functors_know_nothing_of_torch():
    for path in (ROOT / "csrc/functors").rglob("*.h"):
        assert not re.search(r"#include <(torch|ATen|c10)", path.read_text()), path.name


def test_the_library_links_no_python():
    for path in SOURCES:
        if path.parent.name == "doors" and path.name.startswith("python"):
            continue
        assert not re.search(r"#include <(Python\.h|pybind11|torch/csrc/utils/pybind)", path.read_text()), (
            path.name
        )


def test_constants_have_names_of_their_own():
    """Several files are compiled as one, and which ones changes with every new file."""
    found = {}
    for path in SOURCES:
        if path.suffix == ".cpp":
            for name in set(re.findall(r"^(?:constexpr|const)\b[^=({\n]*\b(k[A-Z]\w+)", path.read_text(), re.M)):
                found.setdefault(name, []).append(path.name)
    assert {name: files for name, files in found.items() if len(files) > 1} == {}


def test_files_stay_readable():
    for path in [*SOURCES, *(ROOT / "torchbcd").glob("*.py")]:
        lines = len(path.read_text().splitlines())
        assert lines <= 450 or path.name == "functional.py", f"{path.name} has {lines} lines"


OPTIMIZERS = {
    "BCD": torchbcd.BCD,
    "RelaxedBCD": torchbcd.RelaxedBCD,
    "DLAM": torchbcd.DLAM,
    "DLADMM": torchbcd.DLADMM,
}
# What Python's signatures have under another name, or have alone.
OTHER_NAMES = {"eps": {"eps_start", "eps_factor", "eps_floor"}, "loss_weight": {"loss_weight", "loss_scaling"}}
PYTHON_ONLY = {"model", "loss", "process_group", "certificate"}
# Set by the constructor from other options, and then each layer's.
MADE_AT_START = {"penalty"}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_signatures_are_the_options(name):
    """Python's keyword arguments and their defaults are the rows of the library."""
    optimizer = OPTIMIZERS[name](make_mlp([4, 5, 5, 3]))
    rows = {row["name"]: row for row in optimizer._object.documented_options()}
    signature = inspect.signature(OPTIMIZERS[name].__init__).parameters
    arguments = set(signature) - {"self"} - PYTHON_ONLY
    named = {row for argument in arguments for row in OTHER_NAMES.get(argument, {argument})}
    assert named == set(rows) - MADE_AT_START
    for argument in arguments - set(OTHER_NAMES):
        default = signature[argument].default
        row = rows[argument]
        if (
            argument == "relaxation"
        ):  # that of the last hidden layer; the row has the first one's, which has grown
            grown = signature["growth"].default
            assert row["value"] == pytest.approx(default * grown)
        elif argument == "momentum" and default is None:  # by the depth
            assert row["value"] == 0.7
        else:
            assert (row["value"] or None) == (default or None), argument
        assert row["help"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_param_groups_are_the_layers_options(name):
    optimizer = OPTIMIZERS[name](make_mlp([4, 5, 3]))
    of_layers = {row["name"] for row in optimizer._object.documented_options() if row["of_layers"]}
    assert all(set(group) - {"params"} == of_layers for group in optimizer.param_groups)
