"""The example and the benchmark as their users run them: a subprocess and what it leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/python/train_mlp.py"


def run(script, *arguments, cwd, check=True):
    return subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        cwd=cwd,
        check=check,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "XDG_CACHE_HOME": str(cwd)},
    )


def accuracies(output, optimizer):
    line = next(line for line in output.splitlines() if line.startswith(optimizer))
    return [float(field[:-1]) for field in line.split() if field.endswith("%")]


def assert_is_png(path):
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 10_000


def test_full_batch_on_the_digits(tmp_path):
    arguments = ("--dataset", "digits", "--hidden", "100", "--sweeps", 25, "--adam-epochs", 20)
    done = run(EXAMPLE, *arguments, cwd=tmp_path)
    train, test = accuracies(done.stdout, "BCD ")
    assert train > 93
    assert test > 88
    assert accuracies(done.stdout, "Adam ")[0] > 80
    assert "20 epochs" in done.stdout
    train, test = accuracies(done.stdout, "RelaxedBCD ")
    assert train > 93
    assert test > 90
    assert "BCD sweeps" in done.stderr
    assert "objective=" in done.stderr
    assert_is_png(tmp_path / "bcd_curves.png")


def test_mini_batches_on_the_digits(tmp_path):
    out = tmp_path / "curves.png"
    arguments = ("--epochs", 3, "--batch-size", 100, "--hidden", "50,30", "--seed", 3, "--out", out)
    done = run(EXAMPLE, "--dataset", "digits", *arguments, cwd=tmp_path)
    assert accuracies(done.stdout, "BCD ")[0] > 70
    accuracies(done.stdout, "Adam ")  # as many epochs as the machine has time for: no bound holds on each
    assert_is_png(out)


def test_data_that_is_not_there(tmp_path):
    failed = run(EXAMPLE, "--dataset", "mnist", "--data-root", tmp_path, cwd=tmp_path, check=False)
    assert failed.returncode != 0
    assert "mnist needs its four IDX files" in failed.stderr


@pytest.mark.parametrize("bad", [["--sweeps", "0"], ["--hidden", "3,x"], ["--dataset", "imagenet"]])
def test_bad_arguments(bad, tmp_path):
    failed = run(EXAMPLE, *bad, cwd=tmp_path, check=False)
    assert failed.returncode == 2
    assert "usage:" in failed.stderr


def test_help_explains_every_option(tmp_path):
    text = run(EXAMPLE, "--help", cwd=tmp_path).stdout
    for option in [
        "--dataset",
        "--data-root",
        "--hidden",
        "--activation",
        "--sweeps",
        "--relaxed-epochs",
        "--adam-epochs",
        "--epochs",
        "--batch-size",
        "--init",
        "--adam-init",
        "--gamma",
        "--alpha",
        "--seed",
        "--out",
    ]:
        explanation = text.split(f"\n  {option} ")[1].split("\n  --")[0]
        assert len(explanation.split()) > 4, f"{option} is not explained"


def test_benchmark(tmp_path):
    done = run(ROOT / "benchmarks/bench_sweep.py", "--quick", "--rounds", 1, cwd=tmp_path)
    results = json.loads((tmp_path / "benchmark.json").read_text())
    assert len(results) == 2
    for result in results:
        assert result["workload"] in done.stdout
        assert result["torchbcd_over_floor"] > 0
        assert result["published_over_torchbcd"] > 0


def test_dlam(tmp_path):
    arguments = ("--dataset", "digits", "--rows", 1400, "--sweeps", 40)
    done = run(ROOT / "examples/python/dlam.py", *arguments, cwd=tmp_path)
    last = {}
    for line in done.stdout.splitlines():
        name = next(
            (name for name in ("published", "strict", "joint", "exact W", "dlADMM") if line.startswith(name)),
            None,
        )
        if name:
            last[name] = float(line[12:].split()[-5])  # training accuracy after the last sweep
    assert len(last) == 5
    assert last["joint"] > 85
    assert last["exact W"] > 90
    assert_is_png(tmp_path / "dlam_curves.png")


def test_dlam_benchmark(tmp_path):
    run(ROOT / "benchmarks/bench_dlam.py", "--quick", "--rounds", 1, cwd=tmp_path)
    (result,) = json.loads((tmp_path / "benchmark_dlam.json").read_text())
    assert all(result[f"{name}_seconds"] > 0 for name in ("published", "mDLAM", "joint"))


def test_relaxed_benchmark(tmp_path):
    run(ROOT / "benchmarks/bench_relaxed.py", "--quick", "--rounds", 2, cwd=tmp_path)
    results = json.loads((tmp_path / "benchmark_relaxed.json").read_text())
    assert [result["threads"] for result in results] == [1, 2]
    names = [f"row_blocks={blocks}" for blocks in (1, 2, 4)]
    assert all(result["ratios"][name] > 0 for result in results for name in names)


PAPER = ROOT / "examples/python/paper_experiments.py"


def test_paper_experiments(tmp_path):
    arguments = ("figure1", "--dataset", "digits", "--hidden-scale", 0.03, "--epochs", 2, "--tensorboard", "runs")
    done = run(PAPER, *arguments, cwd=tmp_path)
    for name in ("bcd", "relaxed", "sgd", "adam", "adam-0.001"):
        assert sum(line.startswith(f"{name} ") for line in done.stdout.splitlines()) == 2
        assert list((tmp_path / "runs" / name).glob("events.*"))
    assert_is_png(tmp_path / "paper_curves.png")


def test_paper_experiments_resume_to_the_bit(tmp_path):
    common = ("deep", "--dataset", "digits", "--hidden-scale", 0.05, "--runs", "relaxed,bcd,adam")
    whole = run(PAPER, *common, "--epochs", 3, "--checkpoint", "a.pt", cwd=tmp_path).stdout
    run(PAPER, *common, "--epochs", 1, "--checkpoint", "b.pt", cwd=tmp_path)
    resumed = run(PAPER, *common, "--epochs", 3, "--checkpoint", "b.pt", "--resume", cwd=tmp_path).stdout
    for name in ("relaxed", "bcd", "adam"):
        saved = [torch.load(tmp_path / f"{stem}-{name}.pt", weights_only=False) for stem in "ab"]
        for key, value in saved[0]["model"].items():
            assert torch.equal(value, saved[1]["model"][key]), name
    assert "epoch   3" in whole
    assert "epoch   2" in resumed


def test_missing_cifar(tmp_path):
    failed = run(PAPER, "figure2", "--data-root", tmp_path, cwd=tmp_path, check=False)
    assert "cifar10 needs the files of its Python version" in failed.stderr
    failed = run(PAPER, "deep", "--resume", cwd=tmp_path, check=False)
    assert "--resume needs --checkpoint" in failed.stderr


def test_distributed(tmp_path):
    script = ROOT / "examples/python/distributed.py"
    launch = ("torch.distributed.run", "--standalone", "--nproc-per-node", 2, script, "--sweeps", 3)
    done = run("-m", *launch, cwd=tmp_path)
    objectives = [float(line.split()[1][:-1]) for line in done.stdout.splitlines() if "objective" in line]
    assert len(objectives) == 3
    assert objectives == sorted(objectives, reverse=True)
