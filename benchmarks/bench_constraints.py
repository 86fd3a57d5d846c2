"""Time a sweep with each kind of weight regulariser against one without.

float32, scikit-learn's digits (1,400 rows, 64-100-10), full batches, one thread, the regularisers taking turns in
one run; medians of the sweeps after three of warm-up.

    python benchmarks/bench_constraints.py [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
import time

import sklearn.datasets
import torch
from torch import Tensor, nn
from tqdm import trange

import torchbcd
from torchbcd import regularizers as reg

METHODS = (torchbcd.BCD, torchbcd.RelaxedBCD)
REGULARIZERS = {
    "none": None,
    "`L2(0.01)`": reg.L2(0.01),
    "`L1(0.01)`": reg.L1(0.01),
    "`Nonnegative()`": reg.Nonnegative(),
    "`GroupL1(0.1)`": reg.GroupL1(0.1),
    '`GroupL1(0.1, by="unit")`': reg.GroupL1(0.1, by="unit"),
    "`MaxNorm(1.0)`": reg.MaxNorm(1.0),
    "`MaxNorm(1.0, p=1)`": reg.MaxNorm(1.0, p=1),
    "`MaxNorm(1.0) + L1(0.01)`": reg.MaxNorm(1.0) + reg.L1(0.01),
    "`MaxNorm(1.0) + InputSigns([0, 3, 5])`": reg.MaxNorm(1.0) + reg.InputSigns([0, 3, 5]),
    '`GroupL1(0.1, by="unit") + L1(0.01)`': reg.GroupL1(0.1, by="unit") + reg.L1(0.01),
}


def bound(
    method: type[torchbcd.BCD | torchbcd.RelaxedBCD], terms: reg.Regularizer | None, x: Tensor, y: Tensor
) -> torchbcd.BCD | torchbcd.RelaxedBCD:
    """An optimizer over the digits, warm."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))
    optimizer = method(model, weight_regularizer=terms)
    optimizer.bind(x, y)
    for _ in range(3):
        optimizer.step()
    return optimizer


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10, help="sweeps of each (default: 10)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    digits = sklearn.datasets.load_digits()
    data = torch.tensor(digits.data[:1400] / 16, dtype=torch.float32), torch.tensor(digits.target[:1400])
    optimizers = {
        (name, method): bound(method, terms, *data) for name, terms in REGULARIZERS.items() for method in METHODS
    }
    seconds: dict[tuple[str, type], list[float]] = {key: [] for key in optimizers}
    for _ in trange(arguments.rounds, disable=None):
        for key, optimizer in optimizers.items():
            start = time.perf_counter()
            optimizer.step()
            seconds[key].append(time.perf_counter() - start)
    print("| regulariser | `BCD`: ms, times none | `RelaxedBCD` |")
    print("|---|---|---|")
    for name in REGULARIZERS:
        cells = []
        for method in METHODS:
            own, plain = (statistics.median(seconds[each, method]) for each in (name, "none"))
            cells.append(f"{1e3 * own:.1f}, {own / plain:.1f}")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
