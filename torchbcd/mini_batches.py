"""``RelaxedBCD.fit``: shuffled mini-batches, a schedule, an average of the weights, validation."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from torchbcd import arguments, fit_rules, losses
from torchbcd.distributed import Ranks, same_everywhere
from torchbcd.frozen import eval_mode
from torchbcd.preprocessing import first_linear, is_first_poorly_scaled, standardize_first_
from torchbcd.reports import EpochReport

if TYPE_CHECKING:
    from torchbcd.relaxed import RelaxedBCD

__all__ = ["Settings", "fit", "fit_loader"]

Validation: TypeAlias = "tuple[Tensor, arguments.Targets] | Callable[[nn.Module], float] | None"
_Checked: TypeAlias = "tuple[Tensor, Tensor] | Callable[[nn.Module], float] | None"

ROWS_SEEN = 10_000  # that tell whether inputs want to be standardised


@dataclass(frozen=True)
class Settings:
    """The arguments of ``RelaxedBCD.fit``, which documents them."""

    epochs: int
    batch_size: int
    patience: int | None
    tol: float
    decay: bool
    hold: float
    average: float | str | None
    noise: float
    standardize: bool | None
    generator: torch.Generator | None
    callback: Callable[[EpochReport], object] | None


Batches: TypeAlias = Iterable[Sequence[Any]]  # inputs and targets
Batch: TypeAlias = tuple[Tensor, Tensor, Tensor | None]  # with the rows' weights


class _Rows:
    """Rows in memory, shuffled anew for every epoch."""

    def __init__(self, x: Tensor, y: Tensor, weight: Tensor | None, settings: Settings, ranks: Ranks) -> None:
        self._x, self.targets, self._weight = x, y, weight
        self._settings, self._ranks = settings, ranks
        # What the rows of all processes count.
        self.counted = ranks.total(len(x) if weight is None else weight.double().sum().item())
        # In several processes each has a part in every batch, a smaller one where it has fewer rows.
        self.steps = ranks.most(-(-len(x) // settings.batch_size))
        self.rows = int(ranks.total(len(x)))
        self.batch = min(int(ranks.total(min(settings.batch_size, len(x)))), self.rows)

    def epoch(self) -> Iterator[Batch]:
        """The batches."""
        x, y, weight = self._x, self.targets, self._weight
        shuffled = torch.randperm(len(x), generator=self._settings.generator, device="cpu")
        for rows in self._ranks.batches(shuffled, self._settings.batch_size, self.steps):
            of_rows = None if weight is None else weight[rows.to(weight.device)]
            yield x[rows.to(x.device)], y[rows.to(y.device)], of_rows


class _Loader:
    """Batches that somebody else makes, such as a DataLoader's, gone through once an epoch."""

    def __init__(self, loader: Batches, optimizer: RelaxedBCD) -> None:
        if not isinstance(loader, Iterable):
            raise TypeError(f"x must be a tensor, or batches of inputs and targets (got {type(loader).__name__})")
        if isinstance(loader, Iterator) or not isinstance(loader, Sized):
            raise TypeError(
                "batches must be gone through once an epoch and have a length, which the schedule goes by, as a "
                f"DataLoader has and an iterator has not (got {type(loader).__name__})"
            )
        self._optimizer, self._device = optimizer, optimizer._model.parameters()[0][0].device
        self._loader, self.steps = loader, len(loader)
        self.counted = 0  # rows of the epoch
        first: list[Batch] = []
        for batch in self.epoch():
            first.append(batch)
            if self.counted >= ROWS_SEEN:
                break
        if not first:
            raise ValueError("there must be at least one batch (got none)")
        self.batch = len(first[0][0])
        dataset = getattr(loader, "dataset", None)
        self.rows = len(dataset) if isinstance(dataset, Sized) else self.steps * self.batch
        self.inputs = torch.cat([x for x, _, _ in first])
        self.targets = torch.cat([y for _, y, _ in first])

    def epoch(self) -> Iterator[Batch]:
        """The batches."""
        self.counted = 0
        loss = self._optimizer._loss
        for batch in islice(self._loader, self.steps):
            pair = batch
            if isinstance(loss, losses.MultiOutput) and isinstance(batch, tuple | list):
                # The parts' targets may come one by one, as a TensorDataset gives them.
                pair = (batch[0], batch[1:]) if len(batch) == 1 + len(loss.parts) else batch
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise TypeError(f"a batch must be inputs and targets (got {type(pair).__name__})")
            x, y = arguments.tensor("x", pair[0]), pair[1]
            if isinstance(y, tuple | list):
                y = [part.to(self._device) if isinstance(part, Tensor) else part for part in y]
            self.counted += len(x)
            yield x.to(self._device), self._optimizer._targets("y", y).to(self._device), None


def fit_loader(
    optimizer: RelaxedBCD, loader: Batches, validation: Validation, settings: Settings
) -> list[EpochReport]:
    """Train on batches, of which no more than one is in memory, once the first rows have been looked at."""
    if optimizer._process_group is not None:
        raise ValueError("batches must be made of rows here, fit(x, y), where there is a process_group")
    library = optimizer._push()
    source = _Loader(loader, optimizer)
    _, encoded = library.checked(source.inputs, source.targets, "", None)
    checked_validation, classes = _checked(optimizer, validation)
    _standardize(optimizer, source.inputs[:ROWS_SEEN], encoded[:ROWS_SEEN], None, settings.standardize)
    del source.inputs
    return _run(optimizer, source, checked_validation, classes, settings)


def fit(
    optimizer: RelaxedBCD,
    x: Tensor,
    targets: arguments.Targets,
    weight: Tensor | None,
    validation: Validation,
    settings: Settings,
) -> list[EpochReport]:
    """Train; where modules run before the layers, on their features, which are kept where that is possible."""
    model = optimizer._model
    with same_everywhere(optimizer._process_group, "fit cannot begin") as described:
        x, y = arguments.tensor("x", x), optimizer._targets("y", targets)
        weight = arguments.optional_tensor("sample_weight", weight)
        library = optimizer._push()
        kept = model.frozen_first is not None and settings.noise == 0 and _fits(x, model.linears[0])
        if model.frozen_first is None or kept:
            rows, encoded = library.checked(x, y, "", weight)
            x = rows if kept else x
        else:
            if weight is not None and weight.shape != (len(x),):
                raise ValueError(f"sample_weight must have shape (n,) = [{len(x)}] (got {list(weight.shape)})")
            parts = torch.split(x, 1024), torch.split(y, 1024)
            weights = [None] * len(parts[0]) if weight is None else torch.split(weight, 1024)
            encoded = torch.cat(
                [library.checked(a, b, "", w)[1] for a, b, w in zip(*parts, weights, strict=True)]
            )
        checked_validation, classes = _checked(optimizer, validation)
        described["whether there is validation"] = validation is not None
    if weight is not None and not bool(weight.all()):
        counting = weight > 0
        x, y, encoded, weight = (t[counting.to(t.device)] for t in (x, y, encoded, weight))
    encoded = encoded[:ROWS_SEEN]
    source = _Rows(x, y, weight, settings, Ranks(optimizer._process_group))
    if source.counted == 0:
        raise ValueError("sample_weight must have a sum > 0")
    with model.frozen_first.given() if model.frozen_first is not None and kept else nullcontext():
        _standardize(optimizer, x, encoded, weight, settings.standardize)
        return _run(optimizer, source, checked_validation, classes, settings)


def _checked(optimizer: RelaxedBCD, validation: Validation) -> tuple[_Checked, Tensor | None]:
    """Validation data as a step would take them, and the classes of their rows, if they have any."""
    if validation is None or callable(validation):
        return validation, None
    inputs, targets = arguments.tensor("validation x", validation[0]), validation[1]
    targets = optimizer._targets("validation y", targets)
    checked = optimizer._push().checked(inputs, targets, "validation ", None)
    return checked, None if targets.is_floating_point() else targets.long()


def _fits(x: Tensor, first: nn.Linear) -> bool:
    """Whether the features of all rows take no more than half of the memory that is free."""
    needed = len(x) * first.in_features * first.weight.element_size()
    if first.weight.is_cuda:
        return 2 * needed <= torch.cuda.mem_get_info(first.weight.device)[0]
    memory = Path("/proc/meminfo")
    if not memory.is_file():
        return True
    lines = dict(line.split(":", 1) for line in memory.read_text().splitlines())
    return 2 * needed <= 1024 * int(lines["MemAvailable"].split()[0])


def _run(
    optimizer: RelaxedBCD,
    source: _Rows | _Loader,
    validation: _Checked,
    classes: Tensor | None,
    settings: Settings,
) -> list[EpochReport]:
    """All epochs. The validation inputs are what reaches the first layer; `classes` those of its rows, if any."""
    groups, generator = optimizer.param_groups, settings.generator
    ranks = Ranks(optimizer._process_group)
    total = settings.epochs * source.steps
    average = settings.average
    if average == "auto":
        average = fit_rules.average(source.steps, settings.epochs, groups)
    module = optimizer._model.layers()
    averaged = None
    if average is not None:
        averaging = get_ema_multi_avg_fn(average)  # type: ignore[no-untyped-call]
        averaged = AveragedModel(module, multi_avg_fn=averaging)
    rates = [group["lr"] for group in groups]
    decays = [group["weight_decay"] for group in groups]
    least = [optimizer._object.default_weight_decay(layer, source.targets) for layer in range(len(groups))]
    fit_rules.set_weight_decays(groups, least, source.batch, source.rows, total)
    done, best, since = 0, inf, 0
    best_state: dict[str, Tensor] | None = None
    reports: list[EpochReport] = []
    try:
        for epoch in range(1, settings.epochs + 1):
            before = 0.0
            for inputs, targets, weight in source.epoch():
                if settings.decay:
                    for group, rate in zip(groups, rates, strict=True):
                        group["lr"] = rate * min(1.0, (1 - done / total) / (1 - settings.hold))
                given = inputs
                if settings.noise:
                    perturbation = torch.randn(
                        inputs.shape, generator=generator, dtype=inputs.dtype, device="cpu"
                    )
                    given = inputs + settings.noise * perturbation.to(inputs.device)
                before += optimizer.step(given, targets, sample_weight=weight).before
                if averaged is not None:
                    averaged.update_parameters(module)
                done += 1
            evaluated = module if averaged is None else cast("nn.Sequential", averaged.module)
            loss = accuracy = None
            if callable(validation):
                with eval_mode(evaluated):
                    loss = ranks.mean(float(validation(optimizer._model.whole(evaluated))))
            elif validation is not None:
                loss, accuracy = _evaluate(optimizer, evaluated, *validation, classes)
                rows_seen = len(validation[0])
                loss = ranks.mean(loss, rows_seen)
                accuracy = None if accuracy is None else ranks.mean(accuracy, rows_seen)
            reports.append(EpochReport(epoch, before / source.counted, loss, accuracy))
            if settings.callback is not None:
                settings.callback(reports[-1])
            if settings.patience is not None and loss is not None:
                since = 0 if loss < best - settings.tol else since + 1
                if loss < best:
                    best, best_state = loss, copy.deepcopy(evaluated.state_dict())
                if since >= settings.patience:
                    break
    finally:
        for group, rate, decay_before in zip(groups, rates, decays, strict=True):
            group["lr"], group["weight_decay"] = rate, decay_before
        if best_state is not None:
            module.load_state_dict(best_state)
        elif averaged is not None:
            module.load_state_dict(averaged.module.state_dict())
    return reports


@torch.no_grad()
def _standardize(optimizer: RelaxedBCD, x: Tensor, y: Tensor, weight: Tensor | None, wanted: bool | None) -> None:
    """Fold scale and offset into the first layer where asked to, or where that is safe and needed."""
    model = optimizer._model
    optimizer._scale_seen = True
    if optimizer._process_group is not None and wanted:
        raise ValueError(
            "standardize needs all rows in one process; scale the inputs by the same numbers in each of them"
        )
    if wanted is False or optimizer._process_group is not None:
        return
    few = model.frozen_first is not None and len(x) > ROWS_SEEN
    trained = model.parameters()[0][0].requires_grad
    if wanted is None and (optimizer._object.sweeps or not trained or len(x) < 2):
        return
    first, rows = first_linear(model, x[:ROWS_SEEN] if few else x)
    counts = None if weight is None else weight[: len(rows)]
    if wanted is None:
        if not is_first_poorly_scaled(first, rows, counts):
            return
        with torch.autocast(rows.device.type, enabled=False):
            layers = model.layers()
            with eval_mode(layers):
                outputs = layers(rows[: len(y)])
        loss = str(optimizer._loss)
        each = y.new_ones(1, 1).double() if weight is None else weight[: len(y), None].double().to(y.device)
        mean = y.mean(0) if weight is None else ((each * y).sum(0) / each.sum()).to(y.dtype)
        constant = torch.where(_of_numbers(optimizer._loss, mean), mean, 0)
        best = (each * losses.row_losses(loss, constant.expand_as(y).contiguous(), y).double()).sum()
        if (each * losses.row_losses(loss, outputs, y).double()).sum() < best:
            return
        warnings.warn(
            "x is poorly scaled: fit has folded its scale and offset into the first layer "
            "(torchbcd.standardize_; standardize=False leaves them)",
            UserWarning,
            stacklevel=5,
        )
    standardize_first_(first, rows, counts)


def _of_numbers(loss: losses.Loss, outputs: Tensor) -> Tensor:
    """Which outputs are to be their targets, as numbers."""
    parts = loss.parts if isinstance(loss, losses.MultiOutput) else [(len(outputs), loss)]
    kinds = [losses.resolve(part[1]).name in ("squared", "huber", "quantile") for part in parts]
    return torch.tensor(kinds).repeat_interleave(torch.tensor([part[0] for part in parts])).to(outputs.device)


@torch.no_grad()
def _evaluate(
    optimizer: RelaxedBCD, layers: nn.Module, x: Tensor, y: Tensor, classes: Tensor | None
) -> tuple[float, float | None]:
    """Mean loss of a row, and, where its targets are classes, the accuracy."""
    with torch.autocast(x.device.type, enabled=False), eval_mode(layers):
        outputs = layers(x)
    loss = losses.row_losses(str(optimizer._loss), outputs, y).double().mean().item()
    if classes is None:
        return loss, None
    # The only output of two classes stands for the second one.
    found = (outputs[:, 0] > 0).long() if outputs.shape[1] == 1 else outputs.argmax(1)
    return loss, (found == classes).double().mean().item()
