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
    assert accuracies(done.stdout, "Muon ")[0] > 80
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


def test_monotone_regression_and_pruning(tmp_path):
    done = run(ROOT / "examples/python/monotone.py", "--epochs", 10, "--prune-epochs", 150, cwd=tmp_path)
    lines = done.stdout.splitlines()
    assert "moves in the wrong direction 0.0%" in next(line for line in lines if line.startswith("monotone"))
    kept = next(line for line in lines if line.startswith("pruned")).split(": ")[1].split(", ")
    assert "bmi" in kept
    assert sum("noise" in name for name in kept) < 5
    assert "widths 24, 24, 1 are now" in done.stdout


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
    assert [result["method"] for result in results] == [f"BCD, Algorithm {of}" for of in (2, 2, 1)]
    for result in results:
        assert result["workload"] in done.stdout
        assert result["torchbcd_over_floor"] > 0
    assert all(result["published_over_torchbcd"] > 0 for result in results[:2])


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
    assert all(result[f"{name}_seconds"] > 0 for name in ("published", "mDLAM", "joint", "dlADMM"))
    assert all(result["floors"][name] > 0 for name in ("mDLAM", "joint", "dlADMM"))


def test_relaxed_benchmark(tmp_path):
    run(ROOT / "benchmarks/bench_relaxed.py", "--quick", "--rounds", 2, cwd=tmp_path)
    results = json.loads((tmp_path / "benchmark_relaxed.json").read_text())
    assert [result["threads"] for result in results] == [1, 2]
    names = [f"row_blocks={blocks}" for blocks in (1, 2, 4)]
    assert all(result["ratios"][name] > 0 for result in results for name in names)
    assert all(result["floors"][name] > 0 for result in results for name in ("defaults", "adam"))


PAPER = ROOT / "examples/python/paper_experiments.py"
SEARCH = ROOT / "benchmarks/search_bcd.py"
PLAIN_BCD = ("bcd-full", "bcd-full-mean", "bcd-persistent", "bcd-persistent-mean", "bcd", "bcd-mean")


def test_paper_experiments(tmp_path):
    common = ("mnist", "--dataset", "digits", "--hidden-scale", 0.03, "--epochs", 2, "--seeds", "0,1")
    done = run(PAPER, *common, "--tensorboard", "runs", cwd=tmp_path)
    record = json.loads((tmp_path / "paper_curves.json").read_text())
    assert record["widths"] == [64, 61, 61, 61, 10]
    names = [*PLAIN_BCD, "relaxed", "sgd", "adam", "adam-0.001"]
    assert list(record["curves"]) == names
    last_lines = done.stdout.splitlines()[-len(names) - 1 :]
    for name, line in zip(names, last_lines, strict=False):
        assert sum(line.startswith(f"{name} ") for line in done.stdout.splitlines()) == 5  # and once in the table
        assert line.split()[:2] == [name, "2"]
        for seed in "01":
            assert list((tmp_path / "runs" / f"{name}-seed{seed}").glob("events.*"))
            assert all(
                len(record["curves"][name][seed][key]) == 2 for key in ("loss", "train", "test", "seconds")
            )
    assert_is_png(tmp_path / "paper_curves.png")

    redraw = ("paper_curves.json", "--first", 1, "--out", "early.png")
    again = run(PAPER.with_name("paper_figures.py"), *redraw, cwd=tmp_path).stdout
    assert again.splitlines()[1:-1] == last_lines[:-1]
    assert_is_png(tmp_path / "early.png")


def test_paper_experiments_keep_to_their_time(tmp_path):
    common = ("mnist", "--dataset", "digits", "--hidden-scale", 0.03, "--runs", "bcd-full,sgd", "--seeds", "0,1")
    run(PAPER, *common, "--epochs", 1_000_000, "--seconds", 4, cwd=tmp_path)
    record = json.loads((tmp_path / "paper_curves.json").read_text())
    for seeds in record["curves"].values():
        assert all(0 < curves["seconds"][-1] < 4 for curves in seeds.values())


def test_paper_experiments_resume_to_the_bit(tmp_path):
    names = ("relaxed", *PLAIN_BCD, "adam")
    common = ("deep", "--dataset", "digits", "--hidden-scale", 0.05, "--runs", ",".join(names))
    whole = run(PAPER, *common, "--epochs", 3, "--checkpoint", "a.pt", cwd=tmp_path).stdout
    run(PAPER, *common, "--epochs", 1, "--checkpoint", "b.pt", cwd=tmp_path)
    resumed = run(PAPER, *common, "--epochs", 3, "--checkpoint", "b.pt", "--resume", cwd=tmp_path).stdout
    for name in names:
        saved = [torch.load(tmp_path / f"{stem}-{name}-seed0.pt", weights_only=False) for stem in "ab"]
        for key, value in saved[0]["model"].items():
            assert torch.equal(value, saved[1]["model"][key]), name
    assert "epoch   3" in whole
    assert "epoch   2" in resumed


def test_search_of_settings(tmp_path):
    arguments = ("--dataset", "mnist", "--data-root", tmp_path, "--hidden", "20,20", "--rows", 300)
    write_idx_images(tmp_path)
    limits = ("--validation", 100, "--epochs", 3, "--seconds", 5)
    done = run(SEARCH, *arguments, *limits, "--setting-seconds", 1, cwd=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "search_bcd.jsonl").read_text().splitlines()]
    assert f"{len(lines)} settings" in done.stdout
    assert "the best by validation accuracy" in done.stdout
    assert all(len(line["loss"]) == len(line["validation"]) <= 3 for line in lines)
    assert {line["setting"]["rows"] for line in lines} == {"full", "persistent"}

    searched = ("--searched", "search_bcd.jsonl", "--runs", "bcd-searched", "--epochs", 2)
    net = ("mnist", "--data-root", tmp_path, "--hidden-scale", 0.01)
    assert "bcd-searched" in run(PAPER, *net, *searched, cwd=tmp_path).stdout
    failed = run(PAPER, *net, "--runs", "bcd-searched", cwd=tmp_path, check=False)
    assert "bcd-searched needs --searched" in failed.stderr


def write_idx_images(folder):
    """The digits, as if they were MNIST's files."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images, labels = (15 * digits.images).astype("uint8"), digits.target.astype("uint8")
    for name, rows in (("train", slice(0, 1400)), ("t10k", slice(1400, None))):
        for kind, array in (("images-idx3", images[rows]), ("labels-idx1", labels[rows])):
            header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
            (folder / f"{name}-{kind}-ubyte").write_bytes(header + array.tobytes())


def test_missing_cifar(tmp_path):
    failed = run(PAPER, "cifar10", "--data-root", tmp_path, cwd=tmp_path, check=False)
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
    done = run("-m", *launch, "--optimizer", "RelaxedBCD", cwd=tmp_path)
    assert float(done.stdout.split("accuracy ")[1].split()[0]) > 85


def test_heads_on_a_frozen_cnn(tmp_path):
    script = ROOT / "examples/python/frozen_backbone.py"
    done = run(script, "--dataset", "digits", "--epochs", 3, cwd=tmp_path)
    # How far those with a limit of time come is the machine's affair.
    for name in ("RelaxedBCD", "BCD", "AdamW", "Muon", "RidgeHead", "LogisticRegression"):
        assert len(accuracies(done.stdout, name)) == 1
    assert accuracies(done.stdout, "RelaxedBCD")[0] > 85
    assert accuracies(done.stdout, "RidgeHead")[0] > 95
