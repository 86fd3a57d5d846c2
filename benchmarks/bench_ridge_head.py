"""RidgeHead beside scikit-learn's Ridge: seconds, memory and the difference of their solutions.

Features are made up in float16, on disk, with a class each, and read through a memory map. RidgeHead goes through
them batch by batch; scikit-learn needs all of them at once in float32, so it gets the first rows alone.

    python benchmarks/bench_ridge_head.py --rows 1280000 --features 2048 --classes 1000
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import Ridge
from torch.nn.functional import one_hot

import torchbcd

_ALPHA = 10.0


def _write_features(path: Path, rows: int, features: int, labels: np.ndarray, classes: int) -> np.memmap:
    """Normal numbers about a mean for each class, a block of rows at a time."""
    generator = np.random.default_rng(0)
    means = generator.standard_normal((classes, features), dtype=np.float32)
    data = np.memmap(path, np.float16, "w+", shape=(rows, features))
    for begin in range(0, rows, 8192):
        block = slice(begin, min(begin + 8192, rows))
        noise = generator.standard_normal((block.stop - begin, features), dtype=np.float32)
        data[block] = 0.3 * means[labels[block]] + noise
    data.flush()
    return data


def _resident_mb() -> float:
    """Memory of one's own, without the pages of files."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--batch", type=int, default=8192)
    parser.add_argument("--sklearn-rows", type=int, default=20_000)
    parser.add_argument(
        "--folder", type=Path, default=None, help="where the features go; a temporary one if not given"
    )
    args = parser.parse_args()
    labels = np.random.default_rng(1).integers(args.classes, size=args.rows)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        start = time.perf_counter()
        data = _write_features(Path(folder) / "features", args.rows, args.features, labels, args.classes)
        print(f"{args.rows} x {args.features} in float16, {data.nbytes / 2**30:.1f} GiB, written in "
              f"{time.perf_counter() - start:.0f} s")  # fmt: skip
        before = _resident_mb()
        head = torchbcd.RidgeHead(args.features, args.classes)
        most, start, cpu = 0.0, time.perf_counter(), time.process_time()
        for begin in range(0, args.rows, args.batch):
            rows = slice(begin, begin + args.batch)
            head.partial_fit(torch.from_numpy(np.array(data[rows])), torch.from_numpy(labels[rows]))
            most = max(most, _resident_mb())
        summed = time.perf_counter() - start
        head.solve(_ALPHA)
        solved = time.perf_counter() - start - summed
        flops = args.rows * args.features * (args.features + 1)
        print(f"RidgeHead: {summed:.1f} s of sums ({time.process_time() - cpu:.1f} s of cores, "
              f"{flops / summed / 1e9:.0f} GF/s of one triangle), {solved:.2f} s to solve, "
              f"{most - before:.0f} MiB more than before")  # fmt: skip

        count = min(args.sklearn_rows, args.rows)
        f, y = np.array(data[:count], dtype=np.float32), torch.from_numpy(labels[:count])
        goal = one_hot(y, args.classes).float().numpy()
        start = time.perf_counter()
        ridge = Ridge(_ALPHA).fit(f, goal)
        theirs = time.perf_counter() - start
        start = time.perf_counter()
        first = torchbcd.RidgeHead(args.features, args.classes).partial_fit(torch.from_numpy(f), y)
        weight = first.solve(_ALPHA)[0]
        ours = time.perf_counter() - start
        exact = Ridge(_ALPHA).fit(f.astype(np.float64), goal.astype(np.float64))
        scale = np.abs(exact.coef_).max()
        print(f"the first {count} rows at once: scikit-learn in float32 {theirs:.2f} s, RidgeHead {ours:.2f} s "
              f"({theirs / ours:.1f} x); off from scikit-learn in float64, relative to its largest weight: "
              f"{np.abs(weight.numpy() - exact.coef_).max() / scale:.1e}, scikit-learn in float32 "
              f"{np.abs(ridge.coef_ - exact.coef_).max() / scale:.1e}")  # fmt: skip


if __name__ == "__main__":
    main()
