"""Nets of many Residuals on 20,000 rows of Fashion-MNIST: RelaxedBCD.fit beside AdamW and Muon at equal seconds.

Each net is 784-100, K blocks x + b(x) of width 100, 100-10; "relu last" has b = Linear, ReLU, Linear, "relu
first" b = ReLU, Linear, ReLU, Linear (and a ReLU behind the last block), "norm first" the same with a LayerNorm
before the first ReLU (and behind the last block), "plain" the same Linears and ReLUs without the skips, "plain,
norm" with a LayerNorm before each ReLU. From torch.nn.Linear's start or He's. RelaxedBCD with its defaults; the
peers with the usual settings of compare_defaults.py, untuned, for as many process seconds as that takes. One
thread. Test accuracy in percent, the mean over seeds and their range. `--tuned` runs one net, with the epochs and
the options of TUNED in place of the defaults.

    python benchmarks/residual.py
    python benchmarks/residual.py --tuned --seeds 3
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial
from typing import Any, NamedTuple

import data_sets
import torch
from compare_defaults import train_peer, train_relaxed
from data_sets import Data
from torch import nn
from tqdm import tqdm

from torchbcd.nn import Residual

Net = tuple[str, int, str]  # kind, blocks, start


class Tuned(NamedTuple):
    """A net, and settings of RelaxedBCD that were chosen for it."""

    net: Net
    epochs: int
    options: dict[str, Any]


WIDTH = 100
NETS = (
    ("relu last", 4, "torch"),
    ("relu last", 20, "torch"),
    ("relu last", 20, "he"),
    ("relu first", 20, "torch"),
    ("relu first", 64, "torch"),
    ("plain", 20, "torch"),
    ("plain", 20, "he"),
    ("norm first", 4, "torch"),
    ("norm first", 20, "torch"),
    ("norm first", 20, "he"),
    ("norm first", 64, "he"),
    ("plain", 1, "torch"),
    ("plain, norm", 1, "torch"),
    ("plain, norm", 4, "torch"),
)
# The defaults but for the decay of the branches, 2e-4; chosen on rows 50,000 to 59,999.
TUNED = Tuned(("relu last", 20, "he"), 5, {"weight_decay": [2e-4, *[1.2e-3] * 40, 2e-4]})
CONTESTANTS = ("RelaxedBCD", "AdamW", "Muon")


def make_model(kind: str, blocks: int, start: str, seed: int) -> nn.Sequential:
    """One of the nets."""
    torch.manual_seed(seed)

    def relu() -> list[nn.Module]:
        return [nn.LayerNorm(WIDTH), nn.ReLU()] if "norm" in kind else [nn.ReLU()]

    def branch() -> list[nn.Module]:
        first, second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        within = relu() if kind.startswith("plain") else [nn.ReLU()]
        return [*(relu() if kind.endswith("first") else []), first, *within, second]

    modules: list[nn.Module] = [nn.Linear(784, WIDTH)]
    if not kind.endswith("first"):
        modules += relu()
    for _ in range(blocks):
        modules += [*branch(), *relu()] if kind.startswith("plain") else [Residual(*branch())]
    if kind.endswith("first"):
        modules += relu()
    model = nn.Sequential(*modules, nn.Linear(WIDTH, 10))
    if start == "he":
        for module in model.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)
    return model


def run(net: Net, data: Data, epochs: int, seed: int, options: dict[str, Any]) -> dict[str, float]:
    """Scores of all contestants, and the seconds that each had."""
    make = partial(make_model, *net, seed)
    model = make()
    seconds = train_relaxed(model, data, epochs, seed, **options)
    scores = {"RelaxedBCD": data_sets.score(model, data)}
    for name in ("AdamW", "Muon"):
        scores[name] = data_sets.score(train_peer(name, make, data, seconds, seed)[0], data)
    return {**scores, "seconds": seconds}


def main() -> None:
    """Run all and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", help="nets whose kind begins so")
    parser.add_argument("--tuned", action="store_true", help="the net of TUNED alone, with its settings")
    data_sets.add_arguments(parser)
    arguments = parser.parse_args()
    nets = [net for net in NETS if net[0].startswith(arguments.only or "")]
    epochs, options = arguments.epochs, {}
    if arguments.tuned:
        nets, epochs, options = [TUNED.net], TUNED.epochs, TUNED.options
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    data = data_sets.images("fashion-mnist", "test", arguments, 20_000)
    print(f"| blocks, start | {' | '.join(CONTESTANTS)} | seconds |\n|{'---|' * (len(CONTESTANTS) + 2)}")
    for net in nets:
        seeds = tqdm(range(arguments.seeds), str(net), leave=False)
        runs = [run(net, data, epochs, seed, options) for seed in seeds]
        cells = []
        for name in CONTESTANTS:
            found = [scores[name] for scores in runs]
            cells.append(f"{statistics.mean(found):.2f} ({min(found):.2f} to {max(found):.2f})")
        taken = statistics.mean(scores["seconds"] for scores in runs)
        print(f"| {net[1]} {net[0]}, {net[2]} | {' | '.join(cells)} | {taken:.0f} |", flush=True)


if __name__ == "__main__":
    main()
