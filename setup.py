"""Builds the library and its Python module with CMake and puts both into the package.

CMakeLists.txt holds the one list of sources. `pip install .` makes a wheel, `pip install -e .` an editable
install whose libraries lie beside the Python files.

Environment: TORCHBCD_CUDA=auto|0|1 (FORCE_CUDA=1 is the same as 1), TORCHBCD_SANITIZE=1, MAX_JOBS, and
TORCH_CUDA_ARCH_LIST as for any PyTorch extension. "auto" builds the CUDA kernels where torch is a CUDA
build and a toolkit is found; whether a GPU is present plays no part.
"""

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


def cuda_wanted() -> bool:
    """What TORCHBCD_CUDA asks for, where torch and the toolkit allow it."""
    import torch

    wish = os.environ.get("TORCHBCD_CUDA", "auto").lower()
    if os.environ.get("FORCE_CUDA") == "1":
        wish = "1"
    if wish not in ("auto", "0", "1"):
        raise SystemExit(f"TORCHBCD_CUDA must be auto, 0 or 1 (got {wish!r})")
    possible = torch.version.cuda is not None and cuda_home() is not None
    if wish == "1" and not possible:
        raise SystemExit(
            "TORCHBCD_CUDA=1 needs a CUDA build of torch and a CUDA toolkit "
            f"(got torch {torch.__version__}, toolkit {cuda_home()})"
        )
    return wish != "0" and possible


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
        cuda = cuda_wanted()
        flavour = f"torch-{torch.__version__}-py{sys.version_info.major}.{sys.version_info.minor}"
        sanitize = os.environ.get("TORCHBCD_SANITIZE") == "1"
        build = ROOT / "build" / f"{flavour}{'-cuda' if cuda else ''}{'-sanitize' if sanitize else ''}"
        build.mkdir(parents=True, exist_ok=True)
        configure = [
            "cmake",
            *("-S", str(ROOT), "-B", str(build), "-G", "Ninja"),
            f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DCMAKE_INSTALL_PREFIX={package}",
            "-DTORCHBCD_PYTHON=ON",
            f"-DTORCHBCD_SANITIZE={'ON' if sanitize else 'OFF'}",
            *(cuda_flags() if cuda else ["-DTORCHBCD_CUDA=OFF"]),
        ]
        subprocess.run(configure, check=True)
        jobs = os.environ.get("MAX_JOBS", str(os.cpu_count() or 1))
        subprocess.run(["cmake", "--build", str(build), "--parallel", jobs], check=True)
        subprocess.run(["cmake", "--install", str(build)], check=True)
        (package / "_build_info.py").write_text(
            '"""What this build of the library was made with. Written by setup.py."""\n\n'
            f'TORCHBCD_VERSION = "{version()}"\n'
            f'TORCH_VERSION = "{torch.__version__}"\n'
            f"CUDA = {torch.version.cuda if cuda else None!r}\n"
        )


setup(
    version=version(),
    packages=find_packages(include=["torchbcd", "torchbcd.*"]),
    package_data={"torchbcd": ["py.typed", "*.pyi"]},
    ext_modules=[CMakeExtension("torchbcd._C")],
    cmdclass={"build_ext": CMakeBuild},
)
