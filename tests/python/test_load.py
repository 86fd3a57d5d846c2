"""Importing the package where its library does not fit: both versions, the remedy, the loader's words."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import torchbcd

PACKAGE = Path(torchbcd.__file__).parent


# An editable install finds submodules that a copy lacks in the original; a copy stands alone without it.
IMPORT = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
import torchbcd
print(torchbcd.__file__)
"""


def import_copy(tmp_path, *, built=None, library=None, without=()):
    """Import a copy of the package in a new process.

    Args:
        tmp_path: Where to copy to.
        built: The torch version that the copy claims to be built for.
        library: What its library file holds.
        without: Names of files to leave out.
    """
    copy = tmp_path / "torchbcd"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("include", "share", "__pycache__", *without))
    if built is not None:
        info = copy / "_build_info.py"
        info.write_text(info.read_text().replace(torchbcd._build_info.TORCH_VERSION, built))
    if library is not None:
        (copy / "lib/libtorchbcd.so").write_bytes(library)
    return subprocess.run(
        [sys.executable, "-c", IMPORT],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_copy_imports(tmp_path):
    done = import_copy(tmp_path)
    assert done.stdout.strip() == str(tmp_path / "torchbcd/__init__.py"), done.stderr


def test_built_for_another_torch(tmp_path):
    done = import_copy(tmp_path, built="1.99.0+cpu")
    assert done.returncode != 0
    assert "ImportError: torchbcd was built for torch 1.99.0, found torch 2." in done.stderr
    assert "rebuild it with `pip install" in done.stderr


def test_the_loaders_message_comes_first(tmp_path):
    done = import_copy(tmp_path, built="1.99.0", library=b"not a library")
    message = done.stderr[done.stderr.index("ImportError: the loader could not load libtorchbcd.so") :]
    assert "invalid ELF header" in message or "file too short" in message
    assert message.index("libtorchbcd.so: ") < message.index("built for torch 1.99.0")


def test_not_built(tmp_path):
    done = import_copy(tmp_path, without=("_build_info.py*",))
    assert done.returncode != 0
    assert "library has not been built: run `pip install .`" in done.stderr
