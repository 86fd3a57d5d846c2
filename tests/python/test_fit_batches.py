"""RelaxedBCD.fit on batches that somebody else makes: a loader's, of memory-mapped data."""

from __future__ import annotations

import pytest
import torch
from conftest import make_data, make_mlp
from torch.utils.data import DataLoader, TensorDataset

import torchbcd

WIDTHS, ROWS, BATCH = [6, 9, 3], 130, 20


def trained(*data, **arguments):
    model = make_mlp(WIDTHS, dtype=torch.float32)
    reports = torchbcd.RelaxedBCD(model, "cross_entropy").fit(*data, **arguments)
    return [p.detach() for p in model.parameters()], reports


class Batches:
    """Those that fit makes of rows by a generator, after a first look in order."""

    def __init__(self, x, y):
        self.dataset, self.looks = list(zip(x, y, strict=True)), 0
        self._x, self._y, self._generator = x, y, torch.Generator().manual_seed(3)

    def __len__(self):
        return -(-len(self._x) // BATCH)

    def __iter__(self):
        rows = torch.randperm(len(self._x), generator=self._generator) if self.looks else torch.arange(ROWS)
        self.looks += 1
        return iter([[self._x[i], self._y[i]] for i in rows.split(BATCH)])


def test_batches_are_trained_on_as_they_come():
    """To the bits of the same batches made of rows, with the same schedule and rules."""
    x, y = make_data(ROWS, WIDTHS[0], WIDTHS[-1], dtype=torch.float32)
    settings = {"epochs": 3, "validation": (x, y), "standardize": False}
    generator = torch.Generator().manual_seed(3)
    weights, reports = trained(x, y, batch_size=BATCH, generator=generator, **settings)
    batches = Batches(x, y)
    same_weights, same_reports = trained(batches, **settings)
    assert batches.looks == 4
    assert reports == same_reports
    assert all(map(torch.equal, weights, same_weights))


def test_a_loader_of_memory_mapped_rows(tmp_path):
    x, y = make_data(ROWS, WIDTHS[0], WIDTHS[-1], dtype=torch.float32)
    x = x * torch.tensor([1.0, 1, 1, 1, 1, 1000]) + 50  # badly scaled: the first rows tell
    x.numpy().tofile(tmp_path / "x")
    mapped = torch.from_file(str(tmp_path / "x"), shared=True, size=x.numel()).view(x.shape)
    loader = DataLoader(TensorDataset(mapped, y), BATCH, shuffle=True)
    with pytest.warns(UserWarning, match="fit has folded its scale"):
        _, reports = trained(loader, epochs=4)
    assert reports[-1].loss < reports[0].loss
    assert reports[-1].validation_loss is None


def test_what_is_no_batches_is_refused():
    x, y = make_data(ROWS, WIDTHS[0], WIDTHS[-1], dtype=torch.float32)
    for data, error, match in [
        ((iter([(x, y)]),), TypeError, "have a length"),
        ((3,), TypeError, "or batches of inputs and targets"),
        (([],), ValueError, "at least one batch"),
        (([x, y],), TypeError, "must be inputs and targets"),
        (([(x, y.tolist())],), TypeError, "y must be a torch.Tensor"),
        (([(x, y)], y), TypeError, "x must be a torch.Tensor"),
        ((x,), TypeError, "y must be a torch.Tensor"),
        (([(x[:, :5], y)],), ValueError, "x must have shape"),
    ]:
        with pytest.raises(error, match=match):
            trained(*data)
