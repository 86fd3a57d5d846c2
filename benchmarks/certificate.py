"""What the certificate of RelaxedBCD tells: how far blocks lower L, and how much of that the loss falls.

Fashion-MNIST, 784-300x3-10, torch.nn.Linear's start, the class's defaults on batches of 100 of the first 50,000
rows, `lr` constant. On one batch in EVERY, of L before the step (the batch's loss), in percent: what each block
certifies, what they certify together, how far the loss of the same batch falls (a forward pass with the new
weights), and that of the batch after it, which the step has not seen. The last columns are the rank correlation
between the certified share and these two falls over the measured batches of the epoch. Accuracy on the last
10,000 training rows, of the weights as they are and of their average (decay 0.99).

    python benchmarks/certificate.py [--epochs 3] [--rates 0.25 1] [--seeds 2]
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import torch
from data_sets import SETS, Data, make_model
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import torchbcd

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples/python"))
import datasets

BATCH = 100
EVERY = 25
TRAINING = 50_000


@torch.no_grad()
def loss_of(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Half the sum of squares to one-hot targets."""
    return 0.5 * float((model(x) - functional.one_hot(y, 10)).square().sum(dtype=torch.float64))


def accuracy(model: nn.Module, data: Data) -> float:
    """Of the held-out rows, in percent."""
    with torch.no_grad():
        return 100 * float((model(data.x_held).argmax(1) == data.y_held).double().mean())


def run(data: Data, rate: float, epochs: int, seed: int) -> list[tuple[dict[str, float], float, float]]:
    """For every epoch the mean shares by name, and both accuracies."""
    model = make_model(SETS["fashion-mnist"], data, seed)
    optimizer = torchbcd.RelaxedBCD(model, lr=rate)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.99))
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(epochs):
        shares: dict[str, list[float]] = {}
        batches = torch.randperm(len(data.x), generator=generator).split(BATCH)
        for k, rows in enumerate(batches):
            x, y = data.x[rows], data.y[rows]
            after = batches[(k + 1) % len(batches)]
            other = data.x[after], data.y[after]
            measured = k % EVERY == 0
            other_before = loss_of(model, *other) if measured else 0.0
            report = optimizer.step(x, y)
            averaged.update_parameters(model)
            if measured:
                certificate = report.certificate
                for block, layer, decrease in certificate.blocks:
                    shares.setdefault(f"{block}{layer}", []).append(decrease / certificate.before)
                total = 1 - certificate.after / certificate.before
                shares.setdefault("certified", []).append(total)
                shares.setdefault("same", []).append(1 - loss_of(model, x, y) / certificate.before)
                shares.setdefault("next", []).append(1 - loss_of(model, *other) / other_before)
        means = {name: 100 * statistics.mean(values) for name, values in shares.items()}
        for name in ("same", "next"):
            means[f"rank {name}"] = float(spearmanr(shares["certified"], shares[name]).statistic)
        found.append((means, accuracy(model, data), accuracy(averaged.module, data)))
    return found


def main() -> None:
    """A line for each rate and epoch, means over seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.25, 0.5, 1.0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--data-root", type=Path, help="folder with the four IDX files of Fashion-MNIST")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    whole = datasets.load("fashion-mnist", arguments.data_root)
    data = Data(whole.x[:TRAINING], whole.y[:TRAINING], whole.x[TRAINING:], whole.y[TRAINING:])
    for rate in arguments.rates:
        runs = [run(data, rate, arguments.epochs, seed) for seed in range(arguments.seeds)]
        for epoch in range(arguments.epochs):
            shares, plain, averaged = zip(*(found[epoch] for found in runs), strict=True)
            mean = {name: statistics.mean(each[name] for each in shares) for name in shares[0]}
            line = "  ".join(f"{name} {value:.2f}" for name, value in mean.items())
            print(f"lr {rate:g}, epoch {epoch + 1}: {line}  accuracy {statistics.mean(plain):.2f} "
                  f"averaged {statistics.mean(averaged):.2f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
