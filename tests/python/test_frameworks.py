"""The recipes of docs/using.md, for other people's training loops, each where its package is installed."""

from __future__ import annotations

import warnings

import pytest
import torch
from conftest import make_data, make_mlp
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import torchbcd


def data():
    return make_data(60, 6, 3, dtype=torch.float32)


def plain(x, y, batch, epochs=2):
    """The weights after a loop of one's own."""
    model = make_mlp([6, 8, 3], dtype=torch.float32)
    optimizer = torchbcd.RelaxedBCD(model)
    for _ in range(epochs):
        for rows in torch.arange(len(x)).split(batch):
            optimizer.step(x[rows], y[rows])
    return [p.detach() for p in model.parameters()]


def assert_same(model, expected):
    assert all(torch.equal(p.detach().cpu(), e) for p, e in zip(model.parameters(), expected, strict=True))


def test_lightning(tmp_path):
    lightning = pytest.importorskip("lightning")
    x, y = data()

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False
            self.model = make_mlp([6, 8, 3], dtype=torch.float32)

        def configure_optimizers(self):
            return torchbcd.RelaxedBCD(self.model)

        def training_step(self, batch, index):
            report = self.optimizers().step(inputs=batch[0], targets=batch[1])
            self.log("loss", report.before)

    module = Module()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        saver = lightning.pytorch.callbacks.ModelCheckpoint(dirpath=tmp_path, monitor="loss", save_last=True)
        trainer = lightning.Trainer(
            max_epochs=2,
            accelerator="cpu",
            logger=False,
            callbacks=[saver],
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, DataLoader(TensorDataset(x, y), batch_size=20))
    assert trainer.global_step == 6
    assert_same(module.model, plain(x, y, 20))
    saved = torch.load(tmp_path / "last.ckpt", weights_only=False)
    assert saved["optimizer_states"][0]["torchbcd"]["optimizer"] == "RelaxedBCD"


def by_fabric(loader):
    fabric = pytest.importorskip("lightning.fabric")
    return fabric.Fabric(accelerator="cpu", devices=1).setup_dataloaders(loader)


def by_accelerate(loader):
    return pytest.importorskip("accelerate").Accelerator(cpu=True).prepare(loader)


@pytest.mark.parametrize("prepare", [by_fabric, by_accelerate])
def test_prepared_loaders(prepare):
    x, y = data()
    model = make_mlp([6, 8, 3], dtype=torch.float32)
    optimizer = torchbcd.RelaxedBCD(model)
    loader = prepare(DataLoader(TensorDataset(x, y), batch_size=20))
    for _ in range(2):
        for inputs, targets in loader:
            optimizer.step(inputs, targets)
    assert_same(model, plain(x, y, 20))


def test_skorch():
    skorch = pytest.importorskip("skorch")
    x, y = data()

    class Net(skorch.NeuralNetClassifier):
        def initialize_optimizer(self, *args, **kwargs):
            self.optimizer_ = torchbcd.RelaxedBCD(self.module_)
            return self

        def train_step(self, batch, **fit_params):
            report = self.optimizer_.step(*batch)
            with torch.no_grad():
                return {"loss": torch.tensor(report.before / len(batch[0])), "y_pred": self.infer(batch[0])}

    net = Net(
        lambda: make_mlp([6, 8, 3], dtype=torch.float32),
        criterion=nn.CrossEntropyLoss,
        max_epochs=2,
        batch_size=20,
        train_split=None,
        iterator_train__shuffle=False,
        verbose=0,
    )
    net.fit(x.numpy(), y.numpy())
    assert_same(net.module_, plain(x, y, 20))


def test_ignite():
    engine = pytest.importorskip("ignite.engine")
    x, y = data()
    model = make_mlp([6, 8, 3], dtype=torch.float32)
    optimizer = torchbcd.RelaxedBCD(model)
    trainer = engine.Engine(lambda _, batch: optimizer.step(*batch).before)
    trainer.run(DataLoader(TensorDataset(x, y), batch_size=20), max_epochs=2)
    assert_same(model, plain(x, y, 20))


@pytest.mark.filterwarnings("ignore")
def test_distributed_checkpoint(tmp_path):
    import torch.distributed.checkpoint as dcp

    x, y = data()
    model = make_mlp([6, 8, 3], dtype=torch.float32)
    optimizer = torchbcd.BCD(model)
    optimizer.bind(x, y)
    optimizer.step()
    dcp.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, checkpoint_id=tmp_path)
    twin = make_mlp([6, 8, 3], dtype=torch.float32, seed=5)
    other = torchbcd.BCD(twin)
    other.bind(x, y)
    other.step()
    state = {"model": twin.state_dict(), "optimizer": other.state_dict()}
    dcp.load(state, checkpoint_id=tmp_path)
    twin.load_state_dict(state["model"])
    other.load_state_dict(state["optimizer"])
    for each in (optimizer, other):
        each.step()
    assert_same(twin, [p.detach() for p in model.parameters()])
