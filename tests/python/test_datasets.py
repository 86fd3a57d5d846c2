"""The examples' data: downloads, from a mirror that is a folder here."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import struct
from pathlib import Path

import pytest
import torch

SPEC = importlib.util.spec_from_file_location(
    "datasets", Path(__file__).parents[2] / "examples/python/datasets.py"
)


@pytest.fixture
def mirrored(tmp_path, monkeypatch):
    """The module, a mirror with ten images, and an empty cache."""
    datasets = importlib.util.module_from_spec(SPEC)
    SPEC.loader.exec_module(datasets)
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(datasets.MIRRORS, "mnist", mirror.as_uri())
    checksums = []
    for file in datasets.FILES:
        shape = (10, 2, 2) if "images" in file else (10,)
        pixels = torch.arange(10).repeat_interleave(4 if "images" in file else 1).to(torch.uint8)
        content = struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape) + bytes(pixels.tolist())
        (mirror / f"{file}.gz").write_bytes(gzip.compress(content))
        checksums.append(hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(datasets.CHECKSUMS, "mnist", tuple(checksums))
    return datasets, mirror


def test_a_download_is_kept(mirrored, tmp_path):
    datasets, mirror = mirrored
    with pytest.raises(FileNotFoundError, match="--download fetches them"):
        datasets.load("mnist")
    data = datasets.load("mnist", fetch=True)
    assert data.y.equal(torch.arange(10))
    assert data.x.mul(255).round().equal(torch.arange(10.0)[:, None].expand(10, 4))
    for file in mirror.iterdir():
        file.unlink()
    assert datasets.load("mnist", fetch=True).y.equal(data.y)  # from the cache
    assert len(list((tmp_path / "cache/torchbcd/mnist").iterdir())) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [(gzip.compress(b"other", mtime=0), "has another checksum"), (b"<html>moved</html>", "is no gzip file")],
)
def test_what_is_not_the_data_set_is_not_kept(mirrored, tmp_path, content, message):
    datasets, mirror = mirrored
    (mirror / f"{datasets.FILES[1]}.gz").write_bytes(content)
    with pytest.raises(ValueError, match=f"{datasets.FILES[1]}.gz of file.* {message}"):
        datasets.load("mnist", fetch=True)
    assert [p.name for p in (tmp_path / "cache/torchbcd/mnist").iterdir()] == [f"{datasets.FILES[0]}.gz"]
