"""A regression that is monotone where it has to be, and a net that finds out which inputs it needs.

    python monotone.py

Diabetes progression may not fall with body mass index, blood pressure or the level of triglycerides, and may
not rise with HDL cholesterol: `torchbcd.regularizers.Monotone` sees to that for every input, not only for those
of the data. Then ten columns of noise join the ten of the data, a group lasso on the inputs of every layer cuts
off what does not help, and `torchbcd.prune_zeros` takes it out.
"""

from __future__ import annotations

import argparse

import torch
from sklearn.datasets import load_diabetes
from torch import Tensor, nn

import torchbcd
from torchbcd.regularizers import GroupL1, Monotone

NAMES = ["age", "sex", "bmi", "bp", "s1 tc", "s2 ldl", "s3 hdl", "s4 tch", "s5 ltg", "s6 glu"]
RISING, FALLING = [2, 3, 8], [6]


def data(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Standardised inputs and targets, a training part and a test part."""
    x, y = (torch.tensor(part, dtype=torch.float32) for part in load_diabetes(return_X_y=True))
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    x, y = x[order] / x.std(0), (y[order, None] - y.mean()) / y.std()
    return x[:300], y[:300], x[300:], y[300:]


def net(inputs: int) -> nn.Sequential:
    """Two hidden layers of tanh, which never falls and is convex on neither side alone."""
    return nn.Sequential(nn.Linear(inputs, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 1))


@torch.no_grad()
def score(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """R squared."""
    return 1 - float((model(x) - y).square().mean() / y.var())


@torch.no_grad()
def violations(model: nn.Module, x: Tensor, steps: int = 20) -> float:
    """The part of short moves along the listed inputs by which the output goes the wrong way."""
    wrong = []
    for column in RISING + FALLING:
        moved = x.repeat(steps, 1)
        moved[:, column] = torch.linspace(-3, 3, steps).repeat_interleave(len(x))
        change = model(moved).view(steps, len(x)).diff(dim=0)
        wrong.append((change < 0) if column in RISING else (change > 0))
    return float(torch.cat(wrong).double().mean())


def monotone(x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor, epochs: int) -> None:
    """With and without the constraint."""
    for name, regularizer in (("free", None), ("monotone", Monotone(RISING, FALLING))):
        torch.manual_seed(0)
        model = net(x.shape[1])
        torchbcd.RelaxedBCD(model, weight_regularizer=regularizer).fit(x, y, epochs, batch_size=50)
        print(
            f"{name:9}  R2 on the test part {score(model, x_test, y_test):.3f}, "
            f"moves in the wrong direction {violations(model, x_test):.1%}"
        )


def pruned(x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor, weight: float, epochs: int) -> None:
    """With columns of noise, by group lasso."""
    generator = torch.Generator().manual_seed(1)
    noise, noise_test = (torch.randn(len(part), 10, generator=generator) for part in (x, x_test))
    x, x_test = torch.cat([x, noise], 1), torch.cat([x_test, noise_test], 1)
    torch.manual_seed(0)
    model = net(x.shape[1])
    torchbcd.RelaxedBCD(model, weight_regularizer=GroupL1(weight)).fit(x, y, epochs, batch_size=len(x))
    small = torchbcd.prune_zeros(model)
    kept = [int(j) for j in small[0].index] if isinstance(small[0], torchbcd.nn.Select) else range(x.shape[1])
    widths = [module.out_features for module in small if isinstance(module, nn.Linear)]
    print(f"pruned     inputs kept: {', '.join(NAMES[j] if j < 10 else f'noise {j - 9}' for j in kept)}")
    print(f"           widths 24, 24, 1 are now {', '.join(map(str, widths))}")
    with torch.no_grad():
        difference = float((small(x_test) - model(x_test)).abs().max())
    print(f"           R2 {score(small, x_test, y_test):.3f}, outputs within {difference:.0e} of the whole net's")


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--epochs", type=int, default=30, help="of the monotone regression (default: %(default)s)"
    )
    parser.add_argument("--prune-epochs", type=int, default=300, help="full-batch steps (default: %(default)s)")
    parser.add_argument("--weight", type=float, default=10.0, help="of the group lasso (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the split (default: %(default)s)")
    arguments = parser.parse_args()
    split = data(arguments.seed)
    monotone(*split, arguments.epochs)
    pruned(*split, arguments.weight, arguments.prune_epochs)


if __name__ == "__main__":
    main()
