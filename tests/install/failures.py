"""What users of such packages meet: each failure is provoked, and has to end in one line that says what to do.

What lacks, or is another one than it should be, is so in the trial's environment or on its PATH alone.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from trial import BUILD_TOOLS, Failed, last_word

if TYPE_CHECKING:
    from collections.abc import Callable

    from trial import Trial

COMPILERS = ("c[+][+]", "g[+][+]", "clang[+][+]")
INSTALL = ("-m", "pip", "install", "--no-build-isolation", "--no-deps", ".")
# A compiler that the checks find in order, and that goes down with the first file of the library.
OUT_OF_MEMORY = """case "$*" in
  *torchbcd.dir*) echo "g++: fatal error: Killed signal terminated program cc1plus" >&2; exit 1;;
esac
exec {compiler} "$@" """


def build(trial: Trial, *, path: str | None = None, **variables: str) -> str:
    """`pip install --no-build-isolation .`, which has to fail; what it said.

    Raises:
        Failed: It did not.
    """
    if path is not None:
        variables["PATH"] = f"{trial.environment / 'bin'}:{path}"
    status, output = trial.attempt(trial.interpreter, *INSTALL, cwd=trial.source, **variables)
    if status == 0:
        (trial.environment / "shared").unlink(missing_ok=True)
        raise Failed("it was installed all the same")
    return output


def ask_site(trial: Trial) -> str:
    """Where the environment's packages lie."""
    return trial.run(trial.interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()


def fake_torch(trial: Trial, text: str) -> None:
    """A package by the name of torch."""
    package = Path(ask_site(trial), "torch")
    package.mkdir()
    (package / "__init__.py").write_text(text)


# --- Before the build


def old_setuptools(trial: Trial) -> str:
    trial.make_environment("setuptools==68.2.2", "wheel", torch=False)
    return build(trial)


def no_torch(trial: Trial) -> str:
    trial.make_environment(*BUILD_TOOLS, torch=False)
    return build(trial)


def no_torch_isolated(trial: Trial) -> str:
    trial.make_environment(torch=False)
    return trial.attempt(trial.interpreter, "-m", "pip", "install", ".", cwd=trial.source)[1]


def uv_isolated(trial: Trial) -> str:
    """An isolated build of uv's does not see the environment's torch, and may not take another one."""
    trial.make_environment("uv")
    command = ("uv", "pip", "install", "--python", trial.interpreter, ".")
    return trial.attempt(*command, cwd=trial.source)[1]


def old_torch(trial: Trial) -> str:
    trial.make_environment(*BUILD_TOOLS, torch=False)
    fake_torch(trial, '__version__ = "2.10.0+cpu"\n')
    return build(trial)


def broken_torch(trial: Trial) -> str:
    trial.make_environment(*BUILD_TOOLS, torch=False)
    fake_torch(trial, 'raise OSError("libcudart.so.13: cannot open shared object file")\n')
    return build(trial)


def no_cmake(trial: Trial) -> str:
    trial.make_environment("setuptools>=77", shared=True)
    return build(trial, path=trial.programs(without=("cmake",)))


def old_cmake(trial: Trial) -> str:
    trial.make_environment("setuptools>=77", shared=True)
    return build(trial, path=trial.programs(instead={"cmake": "echo cmake version 3.16.3"}))


def broken_cmake(trial: Trial) -> str:
    """What is left on the PATH of a cmake that another environment's pip has installed."""
    trial.make_environment("setuptools>=77", shared=True)
    script = "echo \"ModuleNotFoundError: No module named 'cmake'\" >&2; exit 1"
    return build(trial, path=trial.programs(instead={"cmake": script}))


def no_ninja(trial: Trial) -> str:
    trial.make_environment("setuptools>=77", "cmake>=3.28")
    return build(trial, path=trial.programs(without=("ninja", "ninja-build")))


def no_compiler(trial: Trial) -> str:
    trial.make_environment(*BUILD_TOOLS, shared=True)
    return build(trial, path=trial.programs(without=COMPILERS), CXX="")


def old_compiler(trial: Trial) -> str:
    trial.make_environment(*BUILD_TOOLS, shared=True)
    script = "echo \"c++: error: unrecognized command line option '-std=c++20'\" >&2; exit 1"
    return build(trial, path=trial.programs(instead={"c++": script}), CXX="")


def other_abi(trial: Trial) -> str:
    trial.make_environment(*BUILD_TOOLS, shared=True)
    return build(trial, CXXFLAGS="-D_GLIBCXX_USE_CXX11_ABI=0")


def no_headers(trial: Trial) -> str:
    """A Python as Debian packages it without python3-dev."""
    trial.make_environment(*BUILD_TOOLS)
    hide = (
        "import sysconfig\n"
        "for scheme in sysconfig._INSTALL_SCHEMES.values():\n"
        "    scheme['include'] = scheme['platinclude'] = '/nonexistent/include/python3'\n"
    )
    Path(ask_site(trial), "sitecustomize.py").write_text(hide)
    return build(trial)


def no_cuda(trial: Trial) -> str:
    """CUDA kernels where there is no toolkit, or torch is no CUDA build."""
    trial.make_environment(*BUILD_TOOLS, shared=True)
    return build(trial, path=trial.programs(without=("nvcc",)), TORCHBCD_CUDA="1")


# --- In the build


def out_of_memory(trial: Trial) -> str:
    trial.make_environment(*BUILD_TOOLS, shared=True)
    compiler = shutil.which("c++", path=trial.path)
    script = OUT_OF_MEMORY.format(compiler=compiler)
    return build(trial, path=trial.programs(instead={"c++": script}), CXX="", CMAKE_CXX_COMPILER_LAUNCHER="")


def compile_error(trial: Trial) -> str:
    """What the compiler says first is repeated at the end, where it is seen."""
    trial.make_environment(*BUILD_TOOLS, shared=True)
    broken = trial.source / "csrc/include/torchbcd/export.h"  # which every file includes
    broken.write_text(f'#include "missing_on_purpose.h"\n{broken.read_text()}')
    return build(trial)


def cmake_without_torch(trial: Trial) -> str:
    """The C++ library alone, and nobody has said where torch is."""
    trial.make_environment(*BUILD_TOOLS, torch=False)
    command = ("cmake", "-G", "Ninja", "-S", trial.source, "-B", trial.source / "build/cmake")
    return "\n".join(line for line in trial.attempt(*command)[1].splitlines() if "torch's folder" in line)


# --- After it


def sources(trial: Trial) -> str:
    """Python started in the sources, which nobody has built."""
    trial.make_environment()
    return trial.attempt(trial.interpreter, "-c", "import torchbcd", cwd=trial.source)[1]


def import_without_torch(trial: Trial) -> str:
    trial.make_environment(torch=False)
    return trial.attempt(trial.interpreter, "-c", "import torchbcd", cwd=trial.source)[1]


def other_torch(trial: Trial) -> str:
    """A build beside another torch than its own. pip itself would put the right one in its place."""
    trial.make_environment(*BUILD_TOOLS)
    trial.pip("install", "--no-build-isolation", "--no-deps", ".", cwd=trial.source)
    site = Path(ask_site(trial))
    version = site / "torch/version.py"
    version.write_text(f"{version.read_text()}\n__version__ = '2.99.0'\n")
    (metadata,) = site.glob("torch-*.dist-info/METADATA")
    metadata.write_text(re.sub(r"^Version: .*$", "Version: 2.99.0", metadata.read_text(), flags=re.M))
    status, said = trial.attempt(trial.interpreter, "-m", "pip", "check")
    wanted = rf"torchbcd \S+ has requirement torch=={trial.torch}, but you have torch 2.99.0"
    if status == 0 or not re.search(wanted, said):
        raise Failed(f"pip check finds nothing amiss: {last_word(said)}")
    return trial.attempt(trial.interpreter, "-I", "-c", "import torchbcd")[1]


class Failure(NamedTuple):
    """How a failure is provoked, and what its last line says."""

    provoke: Callable[[Trial], str]
    says: str


TOOLS = re.escape('`pip install "setuptools>=77" cmake ninja`')
NO_TORCH = f"there is no torch to build with: `pip install torch`, {TOOLS}, then .* --no-build-isolation"
REBUILD = "`pip install --no-build-isolation --force-reinstall --no-deps .`"
FAILURES = {
    "old-setuptools": Failure(old_setuptools, f"torchbcd: setuptools 68.2.2 is too old to build it: {TOOLS}"),
    "no-torch": Failure(no_torch, f"torchbcd: {NO_TORCH}"),
    "no-torch-isolated": Failure(no_torch_isolated, f"torchbcd: {NO_TORCH}"),
    "uv-isolated": Failure(uv_isolated, f"torchbcd: {NO_TORCH}"),
    "old-torch": Failure(old_torch, r'torchbcd: torch 2.10.0\+cpu is too old: `pip install "torch>=2.11"`'),
    "broken-torch": Failure(broken_torch, r"torchbcd: torch .* does not import \(libcudart.*\): mend it first"),
    "no-cmake": Failure(no_cmake, f"torchbcd: there is no cmake on the PATH: {TOOLS}"),
    "old-cmake": Failure(old_cmake, f"torchbcd: .*/cmake is CMake 3.16.3, it takes 3.25: {TOOLS}"),
    "broken-cmake": Failure(broken_cmake, rf"torchbcd: .*/cmake does not run \(ModuleNotFound.*\): {TOOLS}"),
    "no-ninja": Failure(no_ninja, f"torchbcd: there is no ninja on the PATH: {TOOLS}"),
    "no-compiler": Failure(no_compiler, r"torchbcd: there is no C\+\+ compiler \(.*\): install GCC .* CXX"),
    "old-compiler": Failure(old_compiler, r"torchbcd: c\+\+ does not compile C\+\+20 \(.*\): install GCC"),
    "other-abi": Failure(other_abi, "torchbcd: .* another ABI .* take _GLIBCXX_USE_CXX11_ABI=0 out of CXXFLAGS"),
    "no-headers": Failure(no_headers, "torchbcd: there is no Python.h in /nonexistent.*: install this Python's"),
    "no-cuda": Failure(no_cuda, "TORCHBCD_CUDA=1, but (torch .* is no CUDA build|there is no CUDA toolkit)"),
    "out-of-memory": Failure(out_of_memory, "torchbcd: the build failed: .* out of memory; with MAX_JOBS=1"),
    "compile-error": Failure(
        compile_error, "torchbcd: the build failed: .*export.h:1:.* missing_on_purpose.h: No such file"
    ),
    "cmake-without-torch": Failure(cmake_without_torch, "CMAKE_PREFIX_PATH has to name torch's folder"),
    "sources": Failure(sources, "ImportError: torchbcd's C.. library has not been built: run `pip install"),
    "import-without-torch": Failure(import_without_torch, "ImportError: torchbcd needs torch, .*: install"),
    "other-torch": Failure(
        other_torch, f"ImportError: .* built for torch .*, found torch 2.99.0: rebuild it with {REBUILD}"
    ),
}


def check(trial: Trial, failure: Failure) -> None:
    """Provoke a failure, and look at its last line.

    Raises:
        Failed: It says something else, or torchbcd is there all the same.
    """
    word = last_word(failure.provoke(trial))
    if not re.search(failure.says, word):
        raise Failed(f"the last line is {word!r}")
