"""The wheel and the sdist: what is in them, and that the wheel works where the sources are not."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

import torchbcd

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

# Without the finder of the editable install, which would find what the wheel lacks in the sources.
SMOKE = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
from pathlib import Path
import torch, torchbcd
from torch import nn
site = Path(torchbcd.__file__).parents[1]
assert site == Path(sys.argv[1]), site
assert Path(torchbcd.cmake_prefix_path()).is_relative_to(site)
torch.manual_seed(0)
x = torch.randn(256, 8)
y = (x[:, 0] * x[:, 1] > 0).long()
model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2))
optimizer = torchbcd.RelaxedBCD(model)
optimizer.fit(x, y, epochs=20, batch_size=32)
print(bool((model(x).argmax(1) == y).double().mean() > 0.95), torchbcd.__version__)
"""


def run(*command, cwd, **environment):
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**ENVIRONMENT, **environment},
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The wheel, built as anybody would build it. What `make build` has compiled is not compiled again."""
    if os.environ.get("LD_PRELOAD"):
        pytest.skip("packages are not built under a sanitizer")
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-build-isolation", "--no-deps"]
    run(sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", folder, ".", cwd=ROOT)
    (path,) = folder.glob("*.whl")
    return path


def test_what_the_wheel_holds(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    headers = {f"torchbcd/include/torchbcd/{p.name}" for p in (ROOT / "csrc/include/torchbcd").iterdir()}
    modules = {f"torchbcd/{p.name}" for p in (ROOT / "torchbcd").glob("*.py*")}
    wanted = headers | modules | {"torchbcd/py.typed", "torchbcd/lib/libtorchbcd.so"}
    cmake = ("TorchBCDConfig", "TorchBCDConfigVersion", "TorchBCDTargets", "FindLibTorch")
    wanted |= {f"torchbcd/share/cmake/TorchBCD/{name}.cmake" for name in cmake}
    assert wanted <= names
    assert any(name.startswith("torchbcd/_C.") and name.endswith(".so") for name in names)
    outside = {name for name in names if not name.startswith(("torchbcd/", "torchbcd-"))}
    assert not outside
    assert f"torchbcd-{torchbcd.__version__}" in wheel.name


def test_the_wheel_is_for_the_torch_that_it_was_built_with(wheel):
    """So that pip brings that release along, and says so where another one takes its place."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    assert f"\nRequires-Dist: torch=={torch.__version__.split('+')[0]}\n" in metadata


def test_the_wheel_works_in_another_directory(wheel, tmp_path):
    site = tmp_path / "site"
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    run(sys.executable, *install, site, wheel, cwd=tmp_path)
    printed = run(sys.executable, "-c", SMOKE, site, cwd=tmp_path, PYTHONPATH=str(site))
    assert printed.split() == ["True", torchbcd.__version__]
    program = tmp_path / "build"
    prefixes = f"{torch.utils.cmake_prefix_path};{site / 'torchbcd/share/cmake'}"
    run(
        "cmake",
        "-G",
        "Ninja",
        "-S",
        ROOT / "tests/cpp",
        "-B",
        program,
        f"-DCMAKE_PREFIX_PATH={prefixes}",
        cwd=ROOT,
    )


@pytest.mark.xdist_group("wheel")  # which also writes setuptools' metadata into the checkout
def test_the_sdist_is_complete(tmp_path):
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    if not tracked:
        pytest.skip("this is no git checkout, so there is no list of files to compare with")
    build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", build, tmp_path, cwd=ROOT)
    (path,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
        (name,) = (name for name in archive.getnames() if name.count("/") == 1 and name.endswith("/PKG-INFO"))
        assert b"\nRequires-Dist: torch>=2.11\n" in archive.extractfile(name).read()
    wanted = {name for name in tracked.splitlines() if not name.startswith(".")}
    assert wanted <= packed, sorted(wanted - packed)
    assert not {name for name in packed if name.startswith(("build/", ".venv")) or name.endswith((".so", ".pyc"))}
