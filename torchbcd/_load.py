"""Loads the C++ library, or says why it cannot be loaded."""

from __future__ import annotations

import sys
from pathlib import Path

import torch


def _library_file() -> Path:
    suffix = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
    return Path(__file__).parent / "lib" / f"libtorchbcd{suffix}"


def _base_version(version: str) -> str:
    """'2.13.0' of '2.13.0+cpu': CPU and CUDA builds of one release differ in their local label."""
    return version.split("+")[0]


def load() -> None:
    """Load the library, and its operators, into this process.

    Raises:
        ImportError: The library is missing, was built for another release of torch, or the dynamic
            loader refused it; the loader's own message is quoted.
    """
    try:
        from torchbcd import _build_info
    except ImportError as error:
        raise ImportError(
            f"torchbcd's C++ library has not been built: run `pip install .` in its source folder ({error})"
        ) from error
    path = _library_file()
    built, found = _base_version(_build_info.TORCH_VERSION), _base_version(torch.__version__)
    rebuild = (
        f"torchbcd was built for torch {built}, found torch {found}: rebuild it with "
        "`pip install --no-build-isolation --force-reinstall --no-deps .` in its source folder"
    )
    try:
        torch.ops.load_library(path)  # type: ignore[no-untyped-call]
    except OSError as error:
        reason = rebuild if built != found else f"it was built for torch {built}, as found"
        said = error.__cause__ or error  # torch wraps the loader's error in one without its words
        raise ImportError(f"the loader could not load {path.name}: {said}\n{reason}") from error
    if built != found:
        raise ImportError(f"{rebuild} (the loader itself had no complaint)")
