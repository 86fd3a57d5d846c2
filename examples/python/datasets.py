"""Data for the examples: (x, y) of a training and of a test part, pixels in [0, 1]."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
NAMES = ("fashion-mnist", "mnist", "digits")
# Where --download gets the files from, and the SHA-256 of what they hold, in the order of FILES.
MIRRORS = {
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist",
    "fashion-mnist": "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
}
CHECKSUMS = {
    "mnist": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "fashion-mnist": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}


class Data(NamedTuple):
    """A data set: inputs (n, d) in [0, 1] and class indices (n,)."""

    name: str
    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor


def read_idx(path: Path) -> np.ndarray:
    """The array of a file in IDX format, compressed or not."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        content = file.read()
    if content[:3] != b"\0\0\x08":
        raise ValueError(f"{path} is not an IDX file of unsigned bytes")
    dimensions = content[3]
    shape = np.frombuffer(content, ">i4", dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def cache() -> Path:
    """Where downloads go."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "torchbcd"


def folders(name: str, data_root: Path | None) -> list[Path]:
    """Where a data set of that name may lie: what the user says, a cache, a Debian package's folder."""
    found = [cache() / name, Path("/usr/share/datasets") / name]
    return [data_root, data_root / name, *found] if data_root else found


def load_idx_images(name: str, data_root: Path | None) -> Data | None:
    """The images and labels of the first folder that holds all four files; None where none does."""
    for folder in folders(name, data_root):
        paths = [next((p for p in (folder / f, folder / f"{f}.gz") if p.is_file()), None) for f in FILES]
        if None not in paths:
            arrays = [read_idx(path) for path in paths]
            x, x_test = (torch.tensor(a.reshape(len(a), -1), dtype=torch.float32) / 255 for a in arrays[::2])
            y, y_test = (torch.tensor(a.astype(np.int64)) for a in arrays[1::2])
            return Data(name, x, y, x_test, y_test)
    return None


def download(name: str, folder: Path) -> None:
    """Fetch the files of MNIST or Fashion-MNIST that are not in `folder` yet.

    Raises:
        ValueError: What came is not the data set; it is not kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for file, expected in zip(FILES, CHECKSUMS[name], strict=True):
        path = folder / f"{file}.gz"
        if not path.is_file():
            arriving = path.with_suffix(".part")
            torch.hub.download_url_to_file(f"{MIRRORS[name]}/{path.name}", str(arriving))
            try:
                found = hashlib.sha256(gzip.decompress(arriving.read_bytes())).hexdigest()
            except (OSError, EOFError, zlib.error) as error:
                arriving.unlink()
                raise ValueError(f"{path.name} of {MIRRORS[name]} is no gzip file ({error})") from error
            if found != expected:
                arriving.unlink()
                raise ValueError(f"{path.name} of {MIRRORS[name]} has another checksum (got {found})")
            arriving.rename(path)


def load_digits(seed: int = 0) -> Data:
    """scikit-learn's embedded 8 x 8 digits, 1,400 to train on and 397 to test on."""
    from sklearn.datasets import load_digits as load

    images, labels = load(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    x, y = torch.tensor(images / 16, dtype=torch.float32)[order], torch.tensor(labels.astype(np.int64))[order]
    return Data("digits", x[:1400], y[:1400], x[1400:], y[1400:])


def load_cifar10(data_root: Path | None) -> Data | None:
    """CIFAR-10 from the batches of its Python version, unpacked; None where they are not there."""
    for folder in folders("cifar-10-batches-py", data_root):
        names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
        if all((folder / name).is_file() for name in names):
            parts = []
            for name in names:
                with (folder / name).open("rb") as file:
                    parts.append(pickle.load(file, encoding="bytes"))
            images = [torch.tensor(np.asarray(part[b"data"]), dtype=torch.float32) / 255 for part in parts]
            labels = [torch.tensor(part[b"labels"]) for part in parts]
            return Data("cifar10", torch.cat(images[:5]), torch.cat(labels[:5]), images[5], labels[5])
    return None


def load(name: str, data_root: Path | None = None, seed: int = 0, *, fetch: bool = False) -> Data:
    """The data set called `name`; "auto" is Fashion-MNIST where it is found, otherwise the digits.

    With `fetch`, MNIST and Fashion-MNIST are downloaded to a cache where they are not found.
    """
    if name == "digits":
        return load_digits(seed)
    if name == "cifar10":
        if (found := load_cifar10(data_root)) is not None:
            return found
        searched = ", ".join(map(str, folders("cifar-10-batches-py", data_root)))
        raise FileNotFoundError(
            f"cifar10 needs the files of its Python version (data_batch_1, ...) in one of: {searched}"
        )
    idx = "fashion-mnist" if name == "auto" else name
    data = load_idx_images(idx, data_root)
    if data is None and fetch:
        download(idx, cache() / idx)
        data = load_idx_images(idx, data_root)
    if data is not None:
        return data
    if name == "auto":
        print("Fashion-MNIST is not on this machine (--download fetches it); training on scikit-learn's digits.")
        return load_digits(seed)
    searched = ", ".join(map(str, folders(name, data_root)))
    raise FileNotFoundError(
        f"{name} needs its four IDX files ({FILES[0]}[.gz], ...) in one of: {searched}; --download fetches them"
    )
