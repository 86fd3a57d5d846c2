"""Loads the C++ library, or says why it cannot be loaded."""

from __future__ import annotations

import hashlib
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

try:
    import torch
except ImportError as error:
    if error.name != "torch":  # it is there, and what it lacks is its own to say
        raise
    raise ImportError(
        f"torchbcd needs torch, which {sys.executable} does not have: install the release that torchbcd was "
        "built with; `pip check` names it"
    ) from None

_PACKAGE = Path(__file__).resolve().parent
# --no-deps: another torch may not take the place of the one that it is built for now.
_REBUILD = "`pip install --no-build-isolation --force-reinstall --no-deps .` in its source folder"


def _library_file() -> Path:
    suffix = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
    return _PACKAGE / "lib" / f"libtorchbcd{suffix}"


def _base_version(version: str) -> str:
    """'2.13.0' of '2.13.0+cpu': CPU and CUDA builds of one release differ in their local label."""
    return version.split("+")[0]


def _installed_elsewhere() -> Path | None:
    """Another copy of the package on the path, a built one, which this one hides."""
    for folder in map(Path, sys.path):
        package = folder.resolve() / "torchbcd"
        if package != _PACKAGE and (package / "_build_info.py").is_file():
            return package
    return None


def interface(package: Path) -> str:
    """What the C++ module of these sources looks like, in short: it is compared with that of the build."""
    return hashlib.sha256((package / "_C.pyi").read_bytes()).hexdigest()[:16]


def _check_python() -> None:
    """Whether the C++ module is one of this Python's."""
    found = sorted(file.name for file in _PACKAGE.glob("_C.*") if file.suffix in (".so", ".pyd"))
    if found and not any(name == "_C" + suffix for name in found for suffix in EXTENSION_SUFFIXES):
        raise ImportError(
            f"torchbcd was built for another Python ({', '.join(found)}), this is Python "
            f"{sys.version_info[0]}.{sys.version_info[1]}: install it with this one, "
            f"`{sys.executable} -m pip install .` "
            "in its source folder"
        )


def load() -> None:
    """Load the library, and its operators, into this process.

    Raises:
        ImportError: The library is missing, was built for another release of torch, another Python or from
            other sources, or the dynamic loader refused it; the loader's own message is quoted.
    """
    try:
        from torchbcd import _build_info
    except ImportError as error:
        elsewhere = _installed_elsewhere()
        if elsewhere is not None:
            raise ImportError(
                f"the sources of torchbcd in {_PACKAGE.parent}, which are not built, hide the package "
                f"installed in {elsewhere.parent}: start Python in another folder"
            ) from error
        raise ImportError(
            f"torchbcd's C++ library has not been built: run `pip install .` in its source folder ({error})"
        ) from error
    _check_python()
    if getattr(_build_info, "INTERFACE", "") != interface(_PACKAGE):
        raise ImportError(
            "torchbcd's C++ library was built from other sources than its Python files are from: rebuild it with "
            + _REBUILD
        )
    path = _library_file()
    built, found = _base_version(_build_info.TORCH_VERSION), _base_version(torch.__version__)
    rebuild = f"torchbcd was built for torch {built}, found torch {found}: rebuild it with {_REBUILD}"
    try:
        torch.ops.load_library(path)  # type: ignore[no-untyped-call]
    except OSError as error:
        reason = rebuild
        if built == found:
            kernels = "with" if _build_info.CUDA else "without"
            reason = (
                f"it was built for torch {built}, as found, {kernels} CUDA kernels: for a torch of another kind, "
                f"or on another machine, it has to be rebuilt with {_REBUILD}"
            )
        said = error.__cause__ or error  # torch wraps the loader's error in one without its words
        raise ImportError(f"the loader could not load {path.name}: {said}\n{reason}") from error
    if built != found:
        raise ImportError(f"{rebuild} (the loader itself had no complaint)")
