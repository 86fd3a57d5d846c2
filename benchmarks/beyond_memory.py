"""An optimizer with its bound data in a folder: memory, seconds a sweep beside data in memory, and cold starts.

Each row of the table is a process of its own. "own pages" is the most anonymous memory that it has had (RssAnon,
sampled), which is what cannot be written out to a file; "before" is that of torch, the model and the data's maps.
"files" is what is on the folder's disk, files without names included. A sweep's seconds are the median of those
after the first. The last row goes on with the run of the row before it, its files dropped from the page cache
where the system lets a program do so.

    python benchmarks/beyond_memory.py --optimizer RelaxedBCD --rows 400000 --folder /data/scratch
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

import torchbcd

_BLOCK = 1 << 14  # rows made at a time


def _own_mb() -> float:
    """Anonymous memory, without the pages of files."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return float("nan")


def _unnamed_bytes() -> int:
    """Of files that have no name any more."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    ends = [line.split()[0].split("-") for line in lines if "torchbcd.memory." in line]
    return sum(int(end, 16) - int(begin, 16) for begin, end in ends)


class _Peak:
    """The most of it while a block runs."""

    def __enter__(self) -> _Peak:
        self.most, self._ended = _own_mb(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._ended.wait(0.002):
            self.most = max(self.most, _own_mb())

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def _data(folder: Path, rows: int, widths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The data as maps of files, which are written where they are not there yet."""
    made = (folder / "x").exists()
    x = torch.from_file(str(folder / "x"), shared=True, size=rows * widths[0]).view(rows, widths[0])
    y = torch.from_file(str(folder / "y"), shared=True, size=rows, dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(widths[0], widths[-1], generator=generator)
    for begin in range(0, 0 if made else rows, _BLOCK):
        part = x[begin : begin + _BLOCK].normal_(generator=generator)
        y[begin : begin + _BLOCK] = (part @ direction).argmax(1)
    return x, y


def _train(job: dict[str, Any]) -> dict[str, float]:
    """What one process of the table measures."""
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    modules: list[nn.Module] = []
    for d, d_next in pairwise(job["widths"]):
        modules += [nn.Linear(d, d_next), nn.ReLU()]
    x, y = _data(Path(job["data"]), job["rows"], job["widths"])
    if not job["scratch"]:
        x, y = x.clone(), y.clone()
    model = nn.Sequential(*modules[:-1])
    optimizer: torchbcd.BCD | torchbcd.RelaxedBCD
    if job["optimizer"] == "BCD":
        optimizer = torchbcd.BCD(model, "cross_entropy", alpha=0.1)
    else:
        optimizer = torchbcd.RelaxedBCD(model, "cross_entropy")
    before = _own_mb()
    seconds = []
    with _Peak() as peak:
        start = time.perf_counter()
        optimizer.bind(x, y, scratch_dir=job["scratch"], resume=bool(job["scratch"]))
        bound = time.perf_counter() - start
        for _ in range(job["sweeps"]):
            start = time.perf_counter()
            optimizer.step()
            seconds.append(time.perf_counter() - start)
    folder = [file.stat().st_size for file in Path(job["scratch"]).iterdir()] if job["scratch"] else []
    return {
        "files": sum(folder) + _unnamed_bytes(),
        "before": before,
        "most": peak.most,
        "bind": bound,
        "first": seconds[0],
        "sweep": statistics.median(seconds[1:] or seconds),
        "objective": optimizer.objective(),
    }


def _run(**job: object) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, "--job", json.dumps(job)], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def _drop(folder: Path) -> None:
    """Ask for files to be read from the disk again."""
    for file in folder.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rows", type=int, default=400_000, help="of the larger problem; the other has a quarter"
    )
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128, 128, 10])
    parser.add_argument("--sweeps", type=int, default=4)
    parser.add_argument("--optimizer", choices=["BCD", "RelaxedBCD"], default="BCD")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--folder", type=Path, default=None, help="on the disk to measure; a temporary one if not given"
    )
    parser.add_argument("--no-memory", action="store_true", help="leave out what does not fit in memory")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        print(json.dumps(_train(json.loads(args.job))))
        return
    print(
        "| bound | rows | files, GiB | before, MiB | own pages, MiB | bind, s | first, s | sweep, s | objective |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    common = {name: getattr(args, name) for name in ("widths", "sweeps", "threads", "optimizer")}
    sweeps = {}
    with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
        for rows in (args.rows // 4, args.rows):
            data, scratch = Path(temporary) / f"data {rows}", Path(temporary) / f"scratch {rows}"
            data.mkdir()
            scratch.mkdir()
            _data(data, rows, args.widths)
            kinds = ["in a folder", "in memory"] if rows == args.rows else ["in a folder"]
            if rows == args.rows:
                kinds.append("in a folder, again")
            for kind in kinds:
                if kind == "in memory" and args.no_memory:
                    continue
                in_folder = kind != "in memory"
                if kind.endswith("again"):
                    _drop(scratch)
                m = _run(rows=rows, data=str(data), scratch=str(scratch) if in_folder else None, **common)
                sweeps[kind] = m["sweep"]
                print(
                    f"| {kind} | {rows:,} | {m['files'] / 2**30:.2f} | {m['before']:.0f} | {m['most']:.0f} | "
                    f"{m['bind']:.1f} | {m['first']:.2f} | {m['sweep']:.2f} | {m['objective']:.6g} |",
                    flush=True,
                )
            shutil.rmtree(data)
            shutil.rmtree(scratch)
    if "in memory" in sweeps:
        print(
            f"\nA sweep in a folder takes {sweeps['in a folder'] / sweeps['in memory']:.2f} times one in memory."
        )


if __name__ == "__main__":
    main()
