"""Where CMake finds the C++ package that is installed with this one."""

from __future__ import annotations

from pathlib import Path

__all__ = ["cmake_prefix_path"]


def cmake_prefix_path() -> str:
    """The folder to add to ``CMAKE_PREFIX_PATH`` for ``find_package(TorchBCD)``.

    Example:
        >>> Path(cmake_prefix_path(), "TorchBCD", "TorchBCDConfig.cmake").is_file()
        True
    """
    return str(Path(__file__).parent / "share" / "cmake")
