"""A scripted module that trains itself: model, optimizer and loop in one file that runs without Python.

Writes trainer.pt (the module) and data.pt (scikit-learn's digits) for run_script.cpp, which goes on from there.

    python examples/torchscript/train.py --out .
    build/torchscript/run_script trainer.pt data.pt 10 trained.pt
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import torchbcd


class Trainer(nn.Module):
    """A model with the optimizer that trains it."""

    def __init__(self, model: nn.Sequential) -> None:
        super().__init__()
        self.model = model
        self.optimizer = torchbcd.BCD(model, gamma=1.0, alpha=0.05).script_object()

    def forward(self, x: Tensor) -> Tensor:
        """The model's outputs."""
        return self.model(x)

    @torch.jit.export
    def train_on(self, x: Tensor, y: Tensor, sweeps: int) -> float:
        """Sweep over the data, bound if none are yet, and return the objective."""
        if not self.optimizer.bound():
            self.optimizer.bind(x, y)
        for _ in range(sweeps):
            self.optimizer.step()
        return self.optimizer.objective()


class Data(nn.Module):
    """Tensors in a file that C++ reads."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        super().__init__()
        self.register_buffer("x", x)
        self.register_buffer("y", y)


def main() -> None:
    """Train for a few sweeps and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=5, help="sweeps before saving (default: 5)")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the files (default: here)")
    arguments = parser.parse_args()

    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
    torch.manual_seed(0)
    trainer = torch.jit.script(Trainer(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))))
    print(f"objective {trainer.train_on(x, y, arguments.sweeps):.10g} after {arguments.sweeps} sweeps")
    trainer.save(arguments.out / "trainer.pt")
    torch.jit.script(Data(x, y)).save(arguments.out / "data.pt")


if __name__ == "__main__":
    main()
