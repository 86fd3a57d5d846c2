"""Everything that needs a GPU, in one command: `make gpu-test`, with the python that has torch's CUDA build.

Builds torchbcd for the GPU of this machine, without a network, runs the CUDA test-suite and compute-sanitizer
over the operators, and the benchmark against Adam and Muon. Each step has a time limit of its own (seconds);
a step that fails does not keep the next from running, but for the build. Prints a table and writes
build/gpu-test.json.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "build/gpu-site"
REPORT = ROOT / "build/gpu-test.json"
SUITE = ROOT / "tests/python/test_cuda.py"


def environment() -> dict[str, str]:
    """The build's settings: this GPU's architecture alone, no network, the build on the path."""
    major, minor = torch.cuda.get_device_capability()
    return {
        **os.environ,
        "TORCHBCD_CUDA": "1",
        "TORCH_CUDA_ARCH_LIST": f"{major}.{minor}",
        "TORCHBCD_REQUIRE_CUDA": "1",
        "PYTHONPATH": str(SITE),
    }


def steps() -> dict[str, tuple[int, list[str]]]:
    """Each step's time limit in seconds and its command."""
    python = [sys.executable]
    pytest = [*python, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(SUITE)]
    install = ["-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
    bench = [*python, str(ROOT / "benchmarks/bench_gpu.py"), "--out", str(ROOT / "build/benchmark_gpu.json")]
    every = {
        "build": (240, [*python, *install, "--upgrade", "--target", str(SITE), str(ROOT)]),
        "tests": (150, pytest),
        "sanitizer": (90, ["compute-sanitizer", "--error-exitcode", "9", *pytest, "-k", "test_operators"]),
        "benchmark": (90, bench),
    }
    if shutil.which("compute-sanitizer") is None:
        print("gpu-test: compute-sanitizer is not on the PATH: that step is left out")
        del every["sanitizer"]
    return every


def run(command: list[str], limit: int) -> tuple[str, float]:
    """What came of a command, and the seconds it took."""
    start = time.monotonic()
    try:
        # Outside the sources: the package that was built is the one to import.
        done = subprocess.run(command, cwd=ROOT / "build", env=environment(), timeout=limit, check=False)
        outcome = "passed" if done.returncode == 0 else f"failed ({done.returncode})"
    except subprocess.TimeoutExpired:
        outcome = f"cut off after {limit} s"
    return outcome, time.monotonic() - start


def main() -> None:
    """Run the steps that are asked for (all of them), and say what came of each."""
    if not torch.cuda.is_available():
        raise SystemExit(f"gpu-test: torch {torch.__version__} finds no GPU")
    SITE.parent.mkdir(exist_ok=True)
    wanted = sys.argv[1:]
    report = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda}
    for name, (limit, command) in steps().items():
        if wanted and name not in wanted:
            continue
        print(f"==> {name}", flush=True)
        outcome, seconds = run(command, limit)
        report[name] = {"outcome": outcome, "seconds": round(seconds, 1)}
        REPORT.write_text(json.dumps(report, indent=2) + "\n")
        if name == "build" and outcome != "passed":
            break
    print(f"\n{report['gpu']}, torch {report['torch']}, CUDA {report['cuda']}")
    outcomes = {name: result for name, result in report.items() if isinstance(result, dict)}
    for name, result in outcomes.items():
        print(f"{name:12}{result['outcome']:24}{result['seconds']:>8.1f} s")
    raise SystemExit(any(result["outcome"] != "passed" for result in outcomes.values()))


if __name__ == "__main__":
    main()
