"""What setup.py says where a build lacks something. tests/install/ provokes the same in real installations."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
import types
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
TOOLS = '`pip install "setuptools>=77" cmake ninja`'
RELEASE = torch.__version__.split("+")[0]


@pytest.fixture(scope="module")
def setup():
    spec = importlib.util.spec_from_file_location("torchbcd_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Make a PATH of nothing but these scripts."""

    def make(**scripts):
        for name, script in scripts.items():
            path = tmp_path / name.replace("cxx", "c++")
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("CXX", raising=False)
        monkeypatch.delenv("CXXFLAGS", raising=False)

    return make


def test_nothing_lacks_here(setup, monkeypatch):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    obstacles = (setup.torch_obstacle, setup.cmake_obstacle, setup.python_obstacle, setup.compiler_obstacle)
    assert [obstacle() for obstacle in obstacles] == [None] * 4


@pytest.mark.parametrize(
    ("scripts", "says"),
    [
        ({}, "there is no cmake on the PATH: "),
        ({"cmake": "echo cmake version 3.24.9"}, "/cmake is CMake 3.24.9, it takes 3.25: "),
        ({"cmake": "echo first >&2; echo why >&2; exit 1"}, "/cmake does not run (why): "),
        ({"cmake": "exit 0"}, "/cmake does not run (it says no version): "),
        ({"cmake": "echo cmake version 3.25.1"}, "there is no ninja on the PATH: "),
    ],
)
def test_cmake(setup, programs, scripts, says):
    programs(**scripts)
    said = setup.cmake_obstacle()
    assert said.endswith(says + TOOLS)
    assert "\n" not in said


@pytest.mark.parametrize("ninja", ["ninja", "ninja-build"])
def test_ninja_has_two_names(setup, programs, ninja):
    programs(cmake="echo cmake version 4.1.2", **{ninja: ""})
    assert setup.cmake_obstacle() is None


def test_no_compiler(setup, programs, monkeypatch):
    programs()
    said = setup.compiler_obstacle()
    assert said.startswith("there is no C++ compiler (c++, g++, clang++: none is on the PATH): install GCC")
    monkeypatch.setenv("CXX", "ccache my-c++")
    assert "(ccache: none is on the PATH)" in setup.compiler_obstacle()


def test_a_compiler_without_cxx20(setup, programs):
    programs(cxx="echo 'c++: error: no -std=c++20' >&2; exit 1")
    said = setup.compiler_obstacle()
    assert said.startswith("c++ does not compile C++20 (c++: error: no -std=c++20): install GCC")
    programs(cxx="exit 3")
    assert "(exit status 3)" in setup.compiler_obstacle()


def test_another_abi(setup, monkeypatch):
    other = 1 - torch.compiled_with_cxx11_abi()
    monkeypatch.setenv("CXXFLAGS", f"-D_GLIBCXX_USE_CXX11_ABI={other}")
    said = setup.compiler_obstacle()
    assert f"take _GLIBCXX_USE_CXX11_ABI={other} out of CXXFLAGS, or set it to {1 - other}" in said


def test_no_headers(setup, monkeypatch, tmp_path):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    said = setup.python_obstacle()
    assert said.startswith(f"there is no Python.h in {tmp_path}: install this Python's headers (python3.")


def stand_in(monkeypatch, version):
    module = types.ModuleType("torch")
    module.__version__ = version
    module.__spec__ = importlib.util.spec_from_loader("torch", loader=None)
    monkeypatch.setitem(sys.modules, "torch", module)


def test_an_old_torch(setup, monkeypatch):
    stand_in(monkeypatch, "2.10.2+cu128")
    assert setup.torch_obstacle() == 'torch 2.10.2+cu128 is too old: `pip install "torch>=2.11"`'
    stand_in(monkeypatch, "2.11.0a0+git123")
    assert setup.torch_obstacle() is None


def hide_torch(setup, monkeypatch, found):
    """As pip does in an isolated build; a new process of the same Python finds what is `found`."""
    monkeypatch.setattr(setup.importlib.util, "find_spec", lambda name: None)
    said = types.SimpleNamespace(stdout=f"{found}\n")
    monkeypatch.setattr(setup.subprocess, "run", lambda *_, **__: said)
    monkeypatch.setattr(sys, "path", list(sys.path))


def test_no_torch(setup, monkeypatch):
    hide_torch(setup, monkeypatch, "")
    said = setup.torch_obstacle()
    assert said.startswith(
        f"there is no torch to build with: `pip install torch`, {TOOLS}, then install torchbcd"
    )
    assert "--no-build-isolation" in said
    monkeypatch.setattr(sys, "argv", ["setup.py", "dist_info"])
    with pytest.raises(SystemExit, match="torchbcd: there is no torch to build with"):
        setup.required_torch()


def test_an_isolated_build_takes_the_environments_torch(setup, monkeypatch):
    hide_torch(setup, monkeypatch, "/somewhere/site-packages/torch/__init__.py")
    setup.find_torch()
    assert sys.path[-1] == "/somewhere/site-packages"


@pytest.mark.parametrize("command", ["dist_info", "bdist_wheel", "editable_wheel"])
def test_a_build_is_for_one_torch(setup, monkeypatch, command):
    monkeypatch.setattr(sys, "argv", ["setup.py", command])
    assert setup.required_torch() == f"torch=={RELEASE}"


@pytest.mark.parametrize("command", ["sdist", "egg_info"])
def test_a_source_archive_is_for_all(setup, monkeypatch, command):
    monkeypatch.setattr(sys, "argv", ["setup.py", command])
    assert setup.required_torch() == "torch>=2.11"


@pytest.mark.parametrize(
    ("log", "says"),
    [
        ("[1/2] cc\na.cpp:3:1:  error: wrong\nb.cpp:1:1: error: after", "a.cpp:3:1: error: wrong"),
        ("g++: fatal error: Killed signal terminated program cc1plus", "ran out of memory; with MAX_JOBS=1"),
        ("virtual memory exhausted: Cannot allocate memory", "ran out of memory; with MAX_JOBS=1"),
        ("ld: a.o: undefined reference to `f()'\ncollect2: error: ld", "ld: a.o: undefined reference to `f()'"),
        ("CMake Error at CMakeLists.txt:7 (x):\n  One\n  two.\n\n\n-- Incomplete", "failed: One two."),
        ("nothing that is known", "failed: nothing that is known"),
    ],
)
def test_a_build_that_fails_says_why_last(setup, capfd, log, says):
    command = [sys.executable, "-c", f"print({log!r}); raise SystemExit(1)"]
    with pytest.raises(SystemExit, match="^torchbcd: the build failed: ") as raised:
        setup.run(command, "the build")
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)
    assert capfd.readouterr().out.rstrip() == log  # all of it was shown, too


# --- tests/install itself

PIP = """
  error: subprocess-exited-with-error
  ╰─> [2 lines of output]
      running bdist_wheel
      torchbcd: there is no cmake on the PATH: `pip install cmake`
      [end of output]

  note: This error originates from a subprocess, and is likely not a problem with pip.
"""
UV = """
  cause: Call to `setuptools.build_meta.build_wheel` failed (exit status: 1)

         [stderr]
         torchbcd: there is no cmake on the PATH: `pip install cmake`

hint: Build failures usually indicate a problem with the package or the build environment
"""


@pytest.mark.parametrize("output", [PIP, UV, "x\ntorchbcd: there is no cmake on the PATH: `pip install cmake`\n"])
def test_the_last_word_of_a_failure(monkeypatch, output):
    monkeypatch.syspath_prepend(ROOT / "tests/install")
    from trial import last_word

    assert last_word(output) == "torchbcd: there is no cmake on the PATH: `pip install cmake`"


def test_the_trials_are_listed():
    command = [sys.executable, ROOT / "tests/install/try_install.py", "--list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert {"pip", "pip-isolated", "uv", "wheel", "sdist", "editable", "cmake", "no-compiler"} <= set(listed)
