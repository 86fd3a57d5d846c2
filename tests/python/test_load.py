"""Importing the package where its library does not fit: both versions, the remedy, the loader's words."""

from __future__ import annotations

import os
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


def import_copy(tmp_path, *, built=None, library=None, without=(), spoil=lambda package: None, path=()):
    """Import a copy of the package in a new process.

    Args:
        tmp_path: Where to copy to.
        built: The torch version that the copy claims to be built for.
        library: What its library file holds.
        without: Names of files to leave out.
        spoil: What else is done to the copy.
        path: Further folders that Python looks in.
    """
    copy = tmp_path / "torchbcd"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("include", "share", "__pycache__", *without))
    if built is not None:
        info = copy / "_build_info.py"
        info.write_text(info.read_text().replace(torchbcd._build_info.TORCH_VERSION, built))
    if library is not None:
        (copy / "lib/libtorchbcd.so").write_bytes(library)
    spoil(copy)
    return subprocess.run(
        [sys.executable, "-c", IMPORT],
        cwd=tmp_path,
        env={"PYTHONPATH": os.pathsep.join(map(str, (tmp_path, *path))), "PATH": ""},
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


def test_the_same_release_of_another_kind(tmp_path):
    """One release has builds with CUDA and without; what lacks then is the loader's to say."""
    message = last_line(import_copy(tmp_path, library=b"not a library"))
    assert "as found, without CUDA kernels: for a torch of another kind, or on another machine" in message
    assert "rebuilt with `pip install --no-build-isolation --force-reinstall" in message


def test_no_torch(tmp_path):
    """Without site-packages, where torch is."""
    shutil.copytree(PACKAGE, tmp_path / "torchbcd", ignore=shutil.ignore_patterns("include", "share"))
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import torchbcd"],
        cwd=tmp_path,
        env={"PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert last_line(done).startswith("ImportError: torchbcd needs torch, which ")


def test_not_built(tmp_path):
    done = import_copy(tmp_path, without=("_build_info.py*",))
    assert done.returncode != 0
    assert "library has not been built: run `pip install .`" in done.stderr


def last_line(done):
    assert done.returncode != 0
    return done.stderr.strip().splitlines()[-1]


def test_sources_that_hide_an_installed_package(tmp_path):
    installed = tmp_path / "installed"
    shutil.copytree(PACKAGE, installed / "torchbcd", ignore=shutil.ignore_patterns("include", "share"))
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    done = import_copy(checkout, without=("_build_info.py*", "_C*.so", "lib"), path=(installed,))
    assert f"{checkout}, which are not built, hide the package installed in {installed}" in last_line(done)


def test_built_for_another_python(tmp_path):
    def rename(package):
        for module in package.glob("_C.*.so"):
            module.rename(package / "_C.cpython-39-x86_64-linux-gnu.so")

    message = last_line(import_copy(tmp_path, spoil=rename))
    assert "built for another Python (_C.cpython-39-x86_64-linux-gnu.so), this is Python 3." in message
    assert "-m pip install ." in message


def test_built_from_other_sources(tmp_path):
    def change(package):
        (package / "_C.pyi").write_text("# of another version\n")

    message = last_line(import_copy(tmp_path, spoil=change))
    assert "was built from other sources than its Python files are from: rebuild it" in message
