"""Builds the library and its Python module with CMake and puts both into the package.

CMakeLists.txt holds the one list of sources. `pip install .` makes a wheel, `pip install -e .` an editable
install whose libraries lie beside the Python files.

Environment: TORCHBCD_CUDA=auto|0|1 (FORCE_CUDA=1 is the same as 1), TORCHBCD_UNITY=0 (every file by itself:
for who edits), TORCHBCD_SANITIZE=1, MAX_JOBS, and TORCH_CUDA_ARCH_LIST as for any PyTorch extension. "auto"
builds the CUDA kernels where torch is a CUDA build and a working toolkit of its CUDA release is found, and says
in one line why it does not otherwise; whether a GPU is present plays no part.

What a build needs is looked for before it starts, and its lack is one line, the last one of the output:
tests/install/ provokes each.
"""

import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import setuptools
from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
OLDEST_TORCH = (2, 11)
OLDEST_CMAKE = (3, 25)
OLDEST_SETUPTOOLS = 77  # which reads pyproject.toml's license
TOOLS = '`pip install "setuptools>=77" cmake ninja`'
# The commands that end in a package, which is for one release of torch. A source archive is for all of them.
FOR_ONE_TORCH = {"dist_info", "bdist_wheel", "editable_wheel", "build", "build_ext", "develop", "install"}
PROBE = """
#include <concepts>
#include <string>
#if defined(__GLIBCXX__) && _GLIBCXX_USE_CXX11_ABI != %d
#error "another ABI"
#endif
template <std::integral T> T same(T value) { return value; }
int main() { return same(0); }
"""


def version() -> str:
    """The version that version.h, the one place it is written, gives."""
    header = (ROOT / "csrc/include/torchbcd/version.h").read_text()
    return re.search(r'TORCHBCD_VERSION "([^"]+)"', header)[1]


def find_torch() -> None:
    """Make torch importable where pip isolates the build: it is the one beside which torchbcd is installed.

    A build holds for one release of torch, so that one of pip's choice in the isolated environment would not do.
    There PYTHONPATH hides what the same Python has otherwise.
    """
    if importlib.util.find_spec("torch") is not None:
        return
    ask = "from importlib.util import find_spec as f; torch = f('torch'); print(torch.origin if torch else '')"
    command = [sys.executable, "-E", "-c", ask]
    origin = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT).stdout.strip()
    if origin:
        sys.path.append(str(Path(origin).parents[1]))


def torch_obstacle() -> str | None:
    """Why nothing can be built for the torch at hand; None where it can."""
    find_torch()
    if importlib.util.find_spec("torch") is None:
        return (
            f"there is no torch to build with: `pip install torch`, {TOOLS}, then install torchbcd with "
            "--no-build-isolation (a build is for one release of torch, that of your environment)"
        )
    try:
        import torch
    except Exception as error:
        return f"torch is installed, but does not import ({' '.join(str(error).split())}): mend it first"
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        return f'torch {torch.__version__} is too old: `pip install "torch>={oldest}"`'
    return None


def required_torch() -> str:
    """The release of torch that what is made needs: the one it is built with."""
    if FOR_ONE_TORCH.isdisjoint(sys.argv):
        return f"torch>={'.'.join(map(str, OLDEST_TORCH))}"
    if obstacle := torch_obstacle():
        raise SystemExit(f"torchbcd: {obstacle}")
    import torch

    return f"torch=={torch.__version__.split('+')[0]}"


def cmake_obstacle() -> str | None:
    """Why CMake cannot be used; None where it can."""
    if shutil.which("cmake") is None:
        return f"there is no cmake on the PATH: {TOOLS}"
    said = subprocess.run(["cmake", "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"version ((\d+)\.(\d+)\S*)", said.stdout)
    if found is None:
        why = (said.stderr.strip() or "it says no version").splitlines()[-1]
        return f"{shutil.which('cmake')} does not run ({why}): {TOOLS}"
    if (int(found[2]), int(found[3])) < OLDEST_CMAKE:
        oldest = ".".join(map(str, OLDEST_CMAKE))
        return f"{shutil.which('cmake')} is CMake {found[1]}, it takes {oldest}: {TOOLS}"
    if shutil.which("ninja") is None and shutil.which("ninja-build") is None:
        return f"there is no ninja on the PATH: {TOOLS}"
    return None


def compiler_obstacle() -> str | None:
    """Why the compiler that CMake will take cannot be used; None where it can."""
    import torch

    remedy = "install GCC 12 or newer (g++ of apt, gcc-c++ of dnf, gxx of conda), or name a compiler in CXX"
    names = [shlex.split(os.environ["CXX"])] if os.environ.get("CXX") else [["c++"], ["g++"], ["clang++"]]
    compiler = next((name for name in names if shutil.which(name[0])), None)
    if compiler is None:
        looked_for = ", ".join(name[0] for name in names)
        return f"there is no C++ compiler ({looked_for}: none is on the PATH): {remedy}"
    abi = torch.compiled_with_cxx11_abi()
    flags = ["-std=c++20", *shlex.split(os.environ.get("CXXFLAGS", "")), "-fsyntax-only", "-x", "c++", "-"]
    command = [*compiler, *flags]
    said = subprocess.run(command, input=PROBE % abi, capture_output=True, text=True, check=False)
    if "another ABI" in said.stderr:
        return (
            f"{shlex.join(compiler)} is set to another ABI of C++'s library than torch was built with: take "
            f"_GLIBCXX_USE_CXX11_ABI={1 - abi} out of CXXFLAGS, or set it to {int(abi)}"
        )
    if said.returncode != 0:
        why = first_compile_error(said.stderr) or f"exit status {said.returncode}"
        return f"{shlex.join(compiler)} does not compile C++20 ({why}): {remedy}"
    return None


def python_obstacle() -> str | None:
    """Why there can be no module for this Python; None where there can."""
    folder = sysconfig.get_path("include")
    if Path(folder, "Python.h").is_file():
        return None
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return (
        f"there is no Python.h in {folder}: install this Python's headers ({name}-dev of apt, {name}-devel "
        "of dnf), or take a Python that has them (one of conda, uv or pyenv)"
    )


def first_compile_error(log: str) -> str | None:
    """The line in which a compiler or linker first says what is wrong."""
    if re.search(r"\bKilled\b|out of memory|memory exhausted|annot allocate memory", log):
        return "the compiler ran out of memory; with MAX_JOBS=1 in the environment it needs least"
    found = re.search(r"^.*(?:\berror:|undefined reference|cannot find -l).*$", log, re.MULTILINE)
    return " ".join(found[0].split()) if found else None


def run(command: list[str], what: str) -> None:
    """Run a command of the build, its output shown as it comes; where it fails, say in a line why.

    Raises:
        SystemExit: The command failed.
    """
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    if process.returncode != 0:
        log = "".join(lines)
        why = first_error(log) if "CMake Error" in log else first_compile_error(log) or log[-300:]
        raise SystemExit(f"torchbcd: {what} failed: {' '.join(why.split())}")


def cuda_home() -> Path | None:
    """The CUDA toolkit's root: what CUDA_HOME says, or where the nvcc on the PATH says it lives.

    The nvcc on the PATH may be a wrapper script, so its own folder tells nothing.
    """
    if wish := os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH"):
        return Path(wish)
    if shutil.which("nvcc") is None:
        return None
    command = ["nvcc", "--dryrun", "-x", "cu", os.devnull]
    described = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    here = re.search(r"_HERE_=(.+)", described)
    return Path(here[1]).parent if here else None


def cuda_obstacle() -> str | None:
    """Why there can be no CUDA kernels for this torch on this machine, in one line; None where there can."""
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is no CUDA build"
    toolkit = cuda_home()
    if toolkit is None:
        return "there is no CUDA toolkit (no nvcc on the PATH, no CUDA_HOME)"
    try:
        said = subprocess.run([toolkit / "bin/nvcc", "--version"], capture_output=True, text=True, check=False)
    except OSError as error:
        return f"the CUDA toolkit in {toolkit} has no nvcc that runs ({error.strerror})"
    release = re.search(r"release (\d+)\.\d+", said.stdout)
    if release is None:
        return f"the nvcc in {toolkit} does not say its release"
    if release[1] != torch.version.cuda.split(".")[0]:
        return f"the CUDA toolkit in {toolkit} is {release[0]}, torch was built with CUDA {torch.version.cuda}"
    return None


def cuda_wish() -> str:
    """What TORCHBCD_CUDA asks for: "auto", "0" or "1"."""
    wish = "1" if os.environ.get("FORCE_CUDA") == "1" else os.environ.get("TORCHBCD_CUDA", "auto").lower()
    if wish not in ("auto", "0", "1"):
        raise SystemExit(f"TORCHBCD_CUDA must be auto, 0 or 1 (got {wish!r})")
    return wish


def first_error(log: str) -> str:
    """CMake's first error, on one line."""
    errors = re.search(r"^CMake Error[^\n]*\n(.+?)(?:\n\n\n|\nCall Stack|\Z)", log, re.DOTALL | re.MULTILINE)
    return " ".join((errors[1] if errors else log[-300:]).split())


def cuda_flags() -> list[str]:
    """CMake definitions for a CUDA build: toolkit, architectures and the headers the wheel carries."""
    import torch

    toolkit = cuda_home()
    architectures = os.environ.get("TORCH_CUDA_ARCH_LIST", "8.0;9.0+PTX")
    # torch's own CUDA wheels hold the headers and libraries that a bare compiler toolkit lacks.
    major = torch.version.cuda.split(".")[0]
    wheel = Path(torch.__file__).parents[1] / "nvidia" / f"cu{major}"
    nvrtc = wheel / "lib" / f"libnvrtc.so.{major}"
    return [
        *([f"-DCUDA_nvrtc_LIBRARY={nvrtc}"] if nvrtc.is_file() else []),
        "-DTORCHBCD_CUDA=ON",
        f"-DCUDA_TOOLKIT_ROOT_DIR={toolkit}",
        f"-DCUDAToolkit_ROOT={toolkit}",
        f"-DCMAKE_CUDA_COMPILER={toolkit}/bin/nvcc",
        f"-DTORCH_CUDA_ARCH_LIST={architectures.replace(' ', ';')}",
        f"-DTORCHBCD_CUDA_WHEEL={wheel if wheel.is_dir() else ''}",
    ]


class CMakeExtension(Extension):
    """An extension whose sources CMake knows."""

    def __init__(self, name: str) -> None:
        super().__init__(name, sources=[])


class CMakeBuild(build_ext):
    """Configures, builds and installs the CMake project into the package."""

    def run(self) -> None:
        self.in_source = bool(self.inplace or self.editable_mode)
        super().run()

    def copy_extensions_to_source(self) -> None:
        """Nothing to copy: an in-place build installs into the source folder itself."""

    def build_extension(self, ext: Extension) -> None:
        for obstacle in (torch_obstacle, cmake_obstacle, python_obstacle, compiler_obstacle):
            if why := obstacle():
                raise SystemExit(f"torchbcd: {why}")
        import torch

        in_build = Path(self.get_ext_fullpath(ext.name)).parent.resolve()
        package = ROOT / "torchbcd" if self.in_source else in_build
        wish = cuda_wish()
        without_cuda = "TORCHBCD_CUDA=0" if wish == "0" else cuda_obstacle()
        if without_cuda is None:
            build, failure = self.configure(package, cuda=True, must_work=wish == "1")
            without_cuda = failure and f"the CUDA toolkit in {cuda_home()} does not do: {failure}"
        if without_cuda is not None:
            if wish == "1":
                raise SystemExit(f"TORCHBCD_CUDA=1, but {without_cuda}")
            print(f"torchbcd: no CUDA kernels: {without_cuda}", flush=True)
            build, _ = self.configure(package, cuda=False, must_work=True)
        jobs = os.environ.get("MAX_JOBS", str(os.cpu_count() or 1))
        run(["cmake", "--build", str(build), "--parallel", jobs], "the build")
        run(["cmake", "--install", str(build)], "the installation into the package")
        (package / "_build_info.py").write_text(
            '"""What this build of the library was made with. Written by setup.py."""\n\n'
            f'TORCHBCD_VERSION = "{version()}"\n'
            f'TORCH_VERSION = "{torch.__version__}"\n'
            f"CUDA = {torch.version.cuda if without_cuda is None else None!r}\n"
            f"WITHOUT_CUDA = {without_cuda!r}\n"
            f'INTERFACE = "{hashlib.sha256((ROOT / "torchbcd" / "_C.pyi").read_bytes()).hexdigest()[:16]}"\n'
        )

    def configure(self, package: Path, *, cuda: bool, must_work: bool) -> tuple[Path, str | None]:
        """Configure the build folder; the folder, and CMake's error where it may fail."""
        import torch

        flavour = f"torch-{torch.__version__}-py{sys.version_info.major}.{sys.version_info.minor}"
        sanitize = os.environ.get("TORCHBCD_SANITIZE") == "1"
        build = ROOT / "build" / f"{flavour}{'-cuda' if cuda else ''}{'-sanitize' if sanitize else ''}"
        build.mkdir(parents=True, exist_ok=True)
        if cuda:  # a folder configured with another toolkit would take neither this one nor its definitions
            for stale in (build / "CMakeCache.txt", *build.glob("CMakeFiles/*/CMakeCUDACompiler.cmake")):
                stale.unlink(missing_ok=True)
        command = [
            "cmake",
            *("-S", str(ROOT), "-B", str(build), "-G", "Ninja"),
            f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DCMAKE_INSTALL_PREFIX={package}",
            "-DTORCHBCD_PYTHON=ON",
            f"-DTORCHBCD_UNITY={'OFF' if os.environ.get('TORCHBCD_UNITY') == '0' else 'ON'}",
            f"-DTORCHBCD_SANITIZE={'ON' if sanitize else 'OFF'}",
            *(cuda_flags() if cuda else ["-DTORCHBCD_CUDA=OFF"]),
        ]
        if must_work:
            run(command, "CMake's configuration")
            return build, None
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return build, first_error(done.stderr) if done.returncode else None


if __name__ == "__main__":  # the tests import what is above
    if int(setuptools.__version__.split(".")[0]) < OLDEST_SETUPTOOLS:
        raise SystemExit(f"torchbcd: setuptools {setuptools.__version__} is too old to build it: {TOOLS}")
    setup(
        version=version(),
        packages=find_packages(include=["torchbcd", "torchbcd.*"]),
        package_data={"torchbcd": ["py.typed", "*.pyi"]},
        install_requires=[required_torch()],
        ext_modules=[CMakeExtension("torchbcd._C")],
        cmdclass={"build_ext": CMakeBuild},
    )
