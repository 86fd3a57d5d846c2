"""The ways to install torchbcd, and what has to work after each of them."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from trial import BUILD_TOOLS, ROOT, Failed

if TYPE_CHECKING:
    from collections.abc import Callable

    from trial import Trial

# Of the library alone, which no Python package goes with.
SMOKE_LIBRARY = """
import sys
import torch

torch.ops.load_library(sys.argv[1])
x = torch.randn(64, 4)
assert torch.ops.torchbcd.prox_relu(x, x, 1.0).shape == x.shape
torch.classes.torchbcd.RidgeHead(2)
print(torch.utils.cmake_prefix_path)
"""


def smoke(trial: Trial, *, editable: bool = False) -> None:
    """Use what was installed from a folder that has nothing to do with the sources.

    Raises:
        Failed: Something of it does not work.
    """
    place = trial.source if editable else trial.environment
    if not editable:
        shutil.rmtree(trial.source, ignore_errors=True)
    script = ROOT / "tests/install/smoke.py"
    prefixes = trial.run(trial.interpreter, "-I", script, place, trial.torch).strip().splitlines()[-1]
    trial.pip("check")
    # CMake finds the package; that a program links and runs, the path "cmake" shows.
    program, build = ROOT / "tests/install/program", trial.elsewhere / "program"
    trial.run("cmake", "-G", "Ninja", "-S", program, "-B", build, f"-DCMAKE_PREFIX_PATH={prefixes}")


def pip(trial: Trial) -> None:
    """`pip install --no-build-isolation .`."""
    trial.make_environment(*BUILD_TOOLS)
    trial.pip("install", "--no-build-isolation", ".", cwd=trial.source)
    smoke(trial)


def pip_isolated(trial: Trial) -> None:
    """`pip install .`: the tools of the build are pip's, torch is the environment's."""
    trial.make_environment()
    trial.pip("install", ".", cwd=trial.source)
    trial.pip("install", "--quiet", "cmake", "ninja")  # the program's
    smoke(trial)


def uv(trial: Trial) -> None:
    """`uv pip install --no-build-isolation .`."""
    trial.make_environment(*BUILD_TOOLS, "uv")
    trial.run(
        *("uv", "pip", "install", "--python", trial.interpreter, "--no-build-isolation", "."), cwd=trial.source
    )
    smoke(trial)


def wheel(trial: Trial) -> None:
    """A wheel, built in one environment and installed in another one, from another folder."""
    trial.make_environment(*BUILD_TOOLS)
    wheels = trial.elsewhere / "wheels"
    trial.pip("wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", wheels, ".", cwd=trial.source)
    shutil.rmtree(trial.source)
    trial.make_environment("cmake", "ninja")
    trial.pip("install", "--no-index", *wheels.glob("torchbcd-*.whl"))
    smoke(trial)


def sdist(trial: Trial) -> None:
    """A source archive, made without torch, and installed from."""
    archives = trial.elsewhere / "archives"
    trial.make_environment("build", torch=False)
    trial.run(trial.interpreter, "-m", "build", "--sdist", "--outdir", archives, cwd=trial.source)
    shutil.rmtree(trial.source)
    trial.make_environment(*BUILD_TOOLS)
    (archive,) = archives.glob("torchbcd-*.tar.gz")
    trial.pip("install", "--no-build-isolation", archive)
    smoke(trial)


def editable(trial: Trial) -> None:
    """`pip install --no-build-isolation -e .`: its Python files are the sources'."""
    trial.make_environment(*BUILD_TOOLS)
    trial.pip("install", "--no-build-isolation", "-e", ".", cwd=trial.source)
    smoke(trial, editable=True)
    changed = trial.source / "torchbcd/package.py"
    changed.write_text(changed.read_text() + "\nCHANGED = True\n")
    trial.run(trial.interpreter, "-I", "-c", "from torchbcd.package import CHANGED")


def cmake(trial: Trial) -> None:
    """`cmake --install` of the library alone, with the system's CMake, and a program that uses it.

    Raises:
        Failed: The system has no CMake, or something of what was installed does not work.
    """
    trial.make_environment()  # without a CMake of its own, so that the one on the PATH is the system's
    if "cmake version" not in trial.attempt("cmake", "--version")[1]:
        raise Failed("the system has no cmake")
    ask = (trial.interpreter, "-c", "import torch; print(torch.utils.cmake_prefix_path)")
    torch = trial.run(*ask).strip()
    build, prefix = trial.source / "build/cmake", trial.elsewhere / "prefix"
    trial.run("cmake", "-G", "Ninja", "-S", trial.source, "-B", build, f"-DCMAKE_PREFIX_PATH={torch}")
    trial.run("cmake", "--build", build, "--parallel", trial.variables.get("MAX_JOBS", "2"))
    trial.run("cmake", "--install", build, "--prefix", prefix)
    shutil.rmtree(trial.source)
    trial.run(trial.interpreter, "-I", "-c", SMOKE_LIBRARY, prefix / "lib/libtorchbcd.so")
    program, build = ROOT / "tests/install/program", trial.elsewhere / "program"
    trial.run("cmake", "-G", "Ninja", "-S", program, "-B", build, f"-DCMAKE_PREFIX_PATH={torch};{prefix}")
    trial.run("cmake", "--build", build)
    trial.run(build / "program")


PATHS: dict[str, Callable[[Trial], None]] = {
    "pip": pip,
    "pip-isolated": pip_isolated,
    "uv": uv,
    "wheel": wheel,
    "sdist": sdist,
    "editable": editable,
    "cmake": cmake,
}
