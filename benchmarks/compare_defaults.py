"""Measure what RelaxedBCD(model).fit(x, y, epochs) is worth without another argument, beside AdamW and Muon.

The sets and nets are those of data_sets.py, which says where their files are looked for; a set whose data are not
there is skipped. Squared loss (on one-hot targets), torch.nn.Linear's initialisation unless said, one thread,
denormal numbers flushed.

All contestants train for the seconds of the process that RelaxedBCD took: their number of steps, or of epochs, is
those seconds over the mean of a few, timed just before. AdamW: lr 2e-3, batches of 100, weight decay 0.01. Muon:
momentum 0.95 (Nesterov), three Newton-Schulz steps in float32, lr 0.02 sqrt(max(1, rows / columns) of the
matrix), batches of 200; Adam, lr 2e-3, on the last layer and the biases. Both hold their step for half of the run
and then lower it linearly to zero, and average their weights with a decay of 0.99. None of these numbers was
searched; compare_training.py searches. `--before` adds RelaxedBCD with the defaults that it had before these.

    python benchmarks/compare_defaults.py --data-root DATA --tabular DATA/tabular --before
    python benchmarks/compare_defaults.py --part validation --sets digits diabetes

Accuracy in percent, or R^2 in percent for regression; means over seeds, with the range. Small sets are split anew
SPLITS times for each seed, whose figure is the mean over them, and whose seconds are their sum.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from before import BEFORE, FIT_BEFORE
from contestants import Muon, batches
from data_sets import SETS, Data, Set, add_arguments, load, make_model, score
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import torchbcd

SPLITS = 5
TRIAL = 50  # steps to time


Make = Callable[[], nn.Sequential]


def parts(set_: Set, seed: int, arguments: argparse.Namespace) -> Iterator[Data]:
    """What a seed's figure is the mean over."""
    for split in range(SPLITS if set_.small else 1):
        yield load(set_, arguments.part, arguments, SPLITS * seed + split)


def train_relaxed(
    model: nn.Sequential, data: Data, epochs: int, seed: int, before: bool = False, **options: Any
) -> float:
    """Seconds of a fit with the library's defaults, or with those of before; `options` are instead of them."""
    defaults, arguments = (BEFORE, FIT_BEFORE) if before else ({}, {})
    generator = torch.Generator().manual_seed(seed)
    start = time.process_time()
    torchbcd.RelaxedBCD(model, **{**defaults, **options}).fit(
        data.x, data.y, epochs, generator=generator, **arguments
    )
    return time.process_time() - start


def train_before(make: Make, data: Data, seconds: float, seed: int) -> tuple[nn.Sequential, float]:
    """A model after as many epochs with the defaults of before as take so many seconds, and what they took."""
    batch = FIT_BEFORE["batch_size"]
    trial = data._replace(x=data.x[: TRIAL * batch], y=data.y[: TRIAL * batch])
    epochs = max(1, TRIAL * batch // len(data.x))
    taken = [train_relaxed(make(), trial, epochs, seed, before=True) for _ in range(2)][1]
    epoch = taken / epochs * len(data.x) / len(trial.x)
    model = make()
    return model, train_relaxed(model, data, max(1, round(seconds / epoch)), seed, before=True)


def optimizers_of(name: str, model: nn.Sequential) -> tuple[list[torch.optim.Optimizer], int]:
    """Optimizers, and the batch size."""
    if name == "AdamW":
        return [torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01, fused=True)], 100
    *matrices, last = [p for p in model.parameters() if p.ndim == 2]
    rest = [last, *(p for p in model.parameters() if p.ndim == 1)]
    return [Muon(matrices), torch.optim.Adam(rest, lr=2e-3, fused=True)], 200


def backpropagate(name: str, model: nn.Sequential, data: Data, steps: int, seed: int) -> float:
    """Seconds of so many steps, which leave the averaged weights in the model."""
    optimizers, size = optimizers_of(name, model)
    held = steps / 2
    schedulers = [torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: min(1.0, (steps - k) / (steps - held)))
                  for optimizer in optimizers]  # fmt: skip
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.99))
    classes = None if data.y.is_floating_point() else len(list(model.parameters())[-1])
    stream = batches(len(data.x), size, torch.Generator().manual_seed(seed))
    start = time.process_time()
    for _ in range(steps):
        rows = next(stream)
        target = data.y[rows] if classes is None else functional.one_hot(data.y[rows], classes).float()
        loss = 0.5 * (model(data.x[rows]) - target).square().sum(1).mean()
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
        averaged.update_parameters(model)
    seconds = time.process_time() - start
    model.load_state_dict(averaged.module.state_dict())
    return seconds


def train_peer(name: str, make: Make, data: Data, seconds: float, seed: int) -> tuple[nn.Sequential, float]:
    """A model after as many steps as take so many seconds, and what they took."""
    backpropagate(name, make(), data, 3, seed)  # warm
    step = backpropagate(name, make(), data, TRIAL, seed) / TRIAL
    model = make()
    return model, backpropagate(name, model, data, max(2, round(seconds / step)), seed)


def run(set_: Set, data: Data, seed: int, before: bool) -> dict[str, tuple[float, float]]:
    """Scores and seconds of all contestants, one after the other."""
    make = partial(make_model, set_, data, seed)
    model = make()
    seconds = train_relaxed(model, data, set_.epochs, seed)
    results = {"RelaxedBCD": (score(model, data), seconds)}
    if before:
        model, taken = train_before(make, data, seconds, seed)
        results["before"] = (score(model, data), taken)
    for name in ("AdamW", "Muon"):
        model, taken = train_peer(name, make, data, seconds, seed)
        results[name] = (score(model, data), taken)
    return results


def cells(set_: Set, arguments: argparse.Namespace) -> Iterator[str]:
    """For every contestant its mean score, range and seconds."""
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in range(arguments.seeds):
        runs = [run(set_, data, seed, arguments.before) for data in parts(set_, seed, arguments)]
        for contestant in runs[0]:
            scores, seconds = zip(*(results[contestant] for results in runs), strict=True)
            found.setdefault(contestant, []).append((statistics.mean(scores), sum(seconds)))
    for contestant, pairs in found.items():
        scores, seconds = zip(*pairs, strict=True)
        yield (f"{contestant} {statistics.mean(scores):.3f} ({min(scores):.3f}-{max(scores):.3f}) "
               f"{statistics.mean(seconds):.1f} s")  # fmt: skip


def main() -> None:
    """Run all sets, the contestants taking turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), help="default: all")
    parser.add_argument("--part", choices=("validation", "test"), default="test", help="to measure on")
    parser.add_argument("--seeds", type=int, default=2, help="default: 2")
    parser.add_argument("--before", action="store_true", help="also RelaxedBCD with its defaults of before")
    add_arguments(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    for name in arguments.sets:
        try:
            print(f"{name:28}" + "  ".join(cells(SETS[name], arguments)), flush=True)
        except FileNotFoundError as error:
            print(f"{name:28}skipped: {error}", flush=True)


if __name__ == "__main__":
    main()
