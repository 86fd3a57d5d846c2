"""Builds the library and its Python module with CMake and puts both into the package.

CMakeLists.txt holds the one list of sources. `pip install .` makes a wheel, `pip install -e .` an editable
install whose libraries lie beside the Python files.

Environment: TORCHBCD_CUDA=auto|0|1 (FORCE_CUDA=1 is the same as 1), TORCHBCD_UNITY=0 (every file by itself:
for who edits), TORCHBCD_SANITIZE=1, MAX_JOBS, and TORCH_CUDA_ARCH_LIST as for any PyTorch extension. "auto"
builds the CUDA kernels where torch is a CUDA build and a working toolkit of its CUDA release is found, and says
in one line why it does not otherwise; whether a GPU is present plays no part.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()


def version() -> str:
    """The version that version.h, the one place it is written, gives."""
    header = (ROOT / "csrc/include/torchbcd/version.h").read_text()
    return re.search(r'TORCHBCD_VERSION "([^"]+)"', header)[1]


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
        subprocess.run(["cmake", "--build", str(build), "--parallel", jobs], check=True)
        subprocess.run(["cmake", "--install", str(build)], check=True)
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
            subprocess.run(command, check=True)
            return build, None
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return build, first_error(done.stderr) if done.returncode else None


setup(
    version=version(),
    packages=find_packages(include=["torchbcd", "torchbcd.*"]),
    package_data={"torchbcd": ["py.typed", "*.pyi"]},
    ext_modules=[CMakeExtension("torchbcd._C")],
    cmdclass={"build_ext": CMakeBuild},
)
