"""benchmarks/floors.py beside operations that are counted; the table of speed.md; a small run of growth.py."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
import torch
from test_examples import ROOT, assert_is_png, run
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

import torchbcd

N, D, DEPTH = 20, 30, 3
WIDTHS = (D,) * (DEPTH + 1)
PRODUCT = 2 * N * D * D

pytestmark = pytest.mark.usefixtures("benchmarks")


def net():
    torch.manual_seed(0)
    modules = [m for _ in range(DEPTH) for m in (nn.Linear(D, D), nn.ReLU())]
    return nn.Sequential(*modules[:-1]), torch.randn(N, D), torch.randint(D, (N,))


def test_backpropagation():
    """All that torch counts."""
    import floors

    model, x, y = net()
    with FlopCounterMode(display=False) as counter:
        functional.cross_entropy(model(x), y).backward()
    assert counter.get_total_flops() == floors.backpropagation(N, WIDTHS)


def test_dlam_and_dladmm():
    """What sweeps report is not less, and the same where nothing is tried twice and Gram matrices are dear."""
    import floors

    model, x, y = net()
    for momentum in ("nesterov", "none"):
        dlam = torchbcd.DLAM(model, momentum=momentum)
        dlam.bind(x, y)
        products = [dlam.step().products for _ in range(6)]
        least = floors.dlam(N, WIDTHS, momentum == "nesterov")
        assert min(products[2:]) * PRODUCT >= least
        assert least >= (2 + 4 * (DEPTH - 1)) * PRODUCT
        if momentum == "none":
            assert min(products) * PRODUCT == least
    dladmm = torchbcd.DLADMM(model)
    dladmm.bind(x, y)
    assert dladmm.step().products * PRODUCT == floors.dladmm(N, WIDTHS)
    assert floors.dladmm(1000 * N, (D, D)) == 2 * 1000 * PRODUCT + 4 * D**3


def test_bcd():
    """A sweep of two layers, product by product."""
    import floors

    n, inputs, hidden, outputs = 1000, 7, 5, 3
    of_weights = 4 * n * (inputs + 1) * hidden + 4 * n * (hidden + 1) * outputs
    ridge = n * (hidden + 1) ** 2 + (hidden + 1) ** 3 / 3 + 2 * (hidden + 1) ** 2 * outputs
    state = 2 * n * hidden * outputs + outputs**2 * hidden + outputs**3 / 3 + 2 * n * outputs**2
    widths = (inputs, hidden, outputs)
    assert floors.bcd(n, widths) == pytest.approx(of_weights + ridge + state)
    first = n * (inputs + 1) ** 2 + (inputs + 1) ** 3 / 3 + 2 * (inputs + 1) ** 2 * hidden
    assert floors.bcd(n, widths, bound=False) == pytest.approx(of_weights + ridge + state + first)
    assert floors.ridge_operations(1, 1000, 3) == pytest.approx(1000 + 1 / 3 + 6)


TIMES = (
    {"method": "BCD, Algorithm 1", "workload": "w", "threads": 1, "torchbcd_seconds": 2.0, "floor_seconds": 1.0},
    {
        "workload": "v",
        "threads": 2,
        "published_seconds": 3.0,
        "mDLAM_seconds": 0.01,
        "dlADMM_seconds": 4.0,
        "floors": {"mDLAM": 0.005, "dlADMM": 1.0},
    },
    {"net": "5-5", "threads": 1, "defaults": 2.0, "adam": 1.0, "floors": {"defaults": 1.5, "adam": 0.5}},
)
TABLE = [
    "| BCD, Algorithm 1 | w | 1 | 2 s |  | 2.00 | 50 |",
    "| mDLAM | v | 2 | 10 ms | 600.0 | 2.00 | 50 |",
    "| dlADMM | v | 2 | 4 s |  | 4.00 | 25 |",
    "| RelaxedBCD | 200 rows, 5-5, mini-batch | 1 | 2 ms |  | 1.33 | 75 |",
    "| Adam, for comparison | 200 rows, 5-5, mini-batch | 1 | 1 ms |  | 2.00 | 50 |",
]


def test_the_table_of_speed(tmp_path):
    """A row for each time, and what is around the markers stays."""
    (tmp_path / "b.json").write_text(json.dumps(TIMES))
    page = tmp_path / "page.md"
    page.write_text("one\n<!-- written by make bench -->\nold\n<!-- end of what make bench writes -->\ntwo\n")
    for _ in range(2):
        run(ROOT / "benchmarks/speed_report.py", "b.json", "--page", page, cwd=tmp_path)
        lines = page.read_text().splitlines()
        assert (lines[0], lines[-1]) == ("one", "two")
        assert lines[4:-2] == TABLE


def test_growth(tmp_path):
    """What is there is not measured again, what takes too long is left out and says so; exponents are slopes."""
    import growth
    import growth_report

    arguments = ("--quantities", "depth", "--lines", "Adam, step", "dlADMM", "--results", "g.json")
    run(ROOT / "benchmarks/growth.py", *arguments, "--largest", 2, cwd=tmp_path)
    first = json.loads((tmp_path / "g.json").read_text())["points"]
    assert [(p["line"], p["size"]) for p in first] == [(name, n) for name in arguments[3:5] for n in (1, 2)]
    assert all(point["floor"] > 0 and point["seconds"] > 0 for point in first)
    run(ROOT / "benchmarks/growth.py", *arguments, "--seconds", 1e-9, cwd=tmp_path)
    second = json.loads((tmp_path / "g.json").read_text())["points"]
    assert second[:4] == first
    assert all("it would take" in point["skipped"] for point in second[4:])
    assert len(second) == 6
    assert_is_png(tmp_path / "g.png")
    assert "dlADMM" in (tmp_path / "g.md").read_text()
    refused = subprocess.run(
        [sys.executable, ROOT / "benchmarks/growth.py", "--line", "Adam, all rows", "--quantity", "rows",
         "--points", "1000000", "--memory", "0.5"], capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert json.loads(refused.stdout)["skipped"] == "more than 0.5 GiB"
    assert growth.next_size([], (1, 2), 1.0) == 1
    sizes = (1, 3, 10, 30, 100)
    points = [{"quantity": "rows", "line": "x", "size": n, "seconds": 2 * n**1.5, "floor": n**1.5} for n in sizes]
    line = growth_report.Line(points, "rows", "x")
    assert line.exponent() == pytest.approx(1.5)
    assert not list(line.steps())
    points[3]["seconds"] *= 4
    (step,) = growth_report.Line(points, "rows", "x").steps()
    assert "10 to 30" in step
    assert math.isnan(growth_report.Line(points[:1], "rows", "x").exponent())
