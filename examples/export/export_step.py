"""A step of RelaxedBCD compiled by AOTInductor: a file that trains a net without Python and without TorchScript.

Writes step.pt2 (the step, for batches of any size) and start.pt (scikit-learn's digits and untrained weights) for
run_step.cpp, which trains by them; with --evaluate, says what weights that it has written are worth.

    python examples/export/export_step.py --out .
    build/export/run_step step.pt2 start.pt 200 trained.pt
    python examples/export/export_step.py --evaluate trained.pt
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import torchbcd.functional as F

TRAIN = 1500  # rows; the others are to test on


class Step(nn.Module):
    """One step; the weights are the caller's."""

    def __init__(self, network: F.Network) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, x: Tensor, y: Tensor, parameters: list[Tensor], velocity: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """New parameters and velocity."""
        return F.relaxed_step(x, y, parameters, velocity, network=self.network)


def make_model() -> nn.Sequential:
    """An untrained net."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10))


def data() -> tuple[Tensor, Tensor]:
    """The digits, in a fixed order."""
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return torch.tensor(images / 16, dtype=torch.float32)[order], torch.tensor(labels)[order]


def export(folder: Path) -> None:
    """Compile the step, and write both files."""
    parameters, network = F.network_of(make_model())
    x, y = data()
    velocity = [torch.zeros_like(p) for p in parameters]
    rows = torch.export.Dim("rows", min=2)
    shapes = {"x": {0: rows}, "y": {0: rows}, "parameters": [None] * len(parameters)}
    shapes["velocity"] = shapes["parameters"]
    arguments = (x[:100], y[:100], parameters, velocity)
    exported = torch.export.export(Step(network), arguments, dynamic_shapes=shapes)
    torch._inductor.aoti_compile_and_package(exported, package_path=str(folder / "step.pt2"))
    torch.save([x[:TRAIN], y[:TRAIN], *parameters], folder / "start.pt")
    print(f"written: {folder / 'step.pt2'}, {folder / 'start.pt'}")


def evaluate(path: Path) -> None:
    """Print the accuracy of weights."""
    model = make_model()
    nn.utils.vector_to_parameters(torch.load(path), model.parameters())
    x, y = data()
    hits = model(x[TRAIN:]).argmax(1) == y[TRAIN:]
    print(f"accuracy {100 * hits.double().mean():.2f} %")


def main() -> None:
    """Either."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the files (default: here)")
    parser.add_argument("--evaluate", type=Path, metavar="FILE", help="weights that run_step has written")
    arguments = parser.parse_args()
    if arguments.evaluate:
        evaluate(arguments.evaluate)
    else:
        export(arguments.out)


if __name__ == "__main__":
    main()
