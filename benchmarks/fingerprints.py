"""Fingerprint what the optimizers compute, to the last bit: to see that a change of their code changes nothing.

Every case trains a small net by the public Python API alone, on one thread, and hashes weights, split variables,
objectives and reports, and the same of an optimizer that goes on from the first one's state_dict.

    python benchmarks/fingerprints.py --out before.json
    python benchmarks/fingerprints.py --compare before.json     # what differs; then exit code 1

Hashes are comparable on one machine with one release of torch.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import math
import struct
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import torch
from before import BEFORE
from torch import Tensor, nn

import torchbcd
from torchbcd import regularizers as reg

SWEEPS, RESUMED, ROWS = 5, 2, 40
MONOTONE = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.1),
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "identity": nn.Identity,
    "hardtanh": lambda: nn.Hardtanh(-0.75, 1.25),
    "relu6": nn.ReLU6,
    "hardsigmoid": nn.Hardsigmoid,
}
ACTIVATIONS = {
    **MONOTONE,
    "sign": torchbcd.nn.Sign,
    "polynomial": lambda: torchbcd.nn.Polynomial([0.0, 1.0, 0.3, 0.05]),
}
LOSSES = ("squared", "hinge", "logistic", "exponential", "cross_entropy")
REGULARIZERS = {  # of the weights, of the states
    "none": (None, None),
    "l2": (reg.L2(0.3), reg.L2(0.2)),
    "l1": (reg.L1(0.05), reg.L1(0.05)),
    "elastic net": (reg.ElasticNet(0.02, 0.05), reg.ElasticNet(0.02, 0.05)),
    "nonnegative": (reg.Nonnegative(), reg.Nonnegative()),
    "box": (reg.Box(-0.4, 0.5), reg.Box(-1.0, 1.5)),
}
PENALTIES = {"gamma": [0.5, 1.0, 2.0], "rho": [1.5, 0.4, 0.8], "alpha": [0.1, 0.4, 0.6], "alpha_weight": 0.3}
REPORTED = (
    "sweep", "decrease", "loss", "activation_penalty", "affine_penalty", "weight_penalty", "state_penalty",
    "before", "penalties", "halved", "guard_halvings", "eps", "omega", "theta", "tau", "weight_omega",
    "state_omega", "redone", "kept", "trials", "products", "gap", "primal_residual",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """An optimizer over a model, and a way to step it.

    Attributes:
        build: The optimizer over a model.
        way: The name of a function in ``WAYS``.
        widths: The model's.
        hidden: Its hidden activations, which take turns.
        output: Its last activation.
        bias: Whether its Linear modules have one.
        rows: How many rows the data have.
        clamp: Whether the parameters start in the regularisers' box.
        options: What is set in the param groups after the second sweep.
    """

    build: Callable[[nn.Sequential], Any]
    way: str = "bound"
    widths: tuple[int, ...] = (6, 8, 7, 3)
    hidden: tuple[str, ...] = ("relu",)
    output: str | None = None
    bias: bool = True
    rows: int = ROWS
    clamp: bool = False
    options: dict[str, float] = field(default_factory=dict)


def make_model(case: Case, dtype: torch.dtype) -> nn.Sequential:
    """The seeded model of a case."""
    generator = torch.Generator().manual_seed(0)
    modules: list[nn.Module] = [nn.Flatten()] if case.way == "flatten" else []
    names = cycle(case.hidden)
    for inputs, outputs in pairwise(case.widths):
        linear = nn.Linear(inputs, outputs, bias=case.bias).to(dtype)
        with torch.no_grad():
            for parameter, scale in zip(linear.parameters(), (inputs**-0.5, 0.3), strict=False):
                values = scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.copy_(values.clamp(-0.35, 0.45) if case.clamp else values)
        modules += [linear, ACTIVATIONS[next(names)]()]
    last = [] if case.output is None else [ACTIVATIONS[case.output]()]
    return nn.Sequential(*modules[:-1], *last)


def make_data(case: Case, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, classes and weights of the rows, seeded."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(case.rows, case.widths[0], generator=generator, dtype=torch.float64).to(dtype)
    y = torch.randint(max(case.widths[-1], 2), (case.rows,), generator=generator)
    return x, y, torch.rand(case.rows, generator=generator, dtype=torch.float64).to(dtype)


Data = tuple[Tensor, Tensor, Tensor]


def rows_of(k: int, n: int) -> Tensor:
    """The rows of the k-th mini-batch, whose sizes differ."""
    size = (n // 2, n // 3, n, 5)[k % 4]
    return torch.randperm(n, generator=torch.Generator().manual_seed(k))[:size]


def step_batch(optimizer: Any, data: Data, k: int) -> Any:
    """A mini-batch of its own."""
    rows = rows_of(k, len(data[0]))
    return optimizer.step(data[0][rows], data[1][rows])


def step_weighted(optimizer: Any, data: Data, k: int) -> Any:
    """A mini-batch with weights."""
    x, y, weights = (part[rows_of(k, len(data[0]))] for part in data)
    return optimizer.step(x, y, sample_weight=weights)


def step_rows(optimizer: Any, data: Data, k: int) -> Any:
    """A mini-batch of the bound rows."""
    return optimizer.step(index=rows_of(k, len(data[0])))


def step_mixed(optimizer: Any, data: Data, k: int) -> Any:
    """The three ways in turn."""
    return (step_rows, step_batch, lambda optimizer, *_: optimizer.step())[k % 3](optimizer, data, k)


def step_scheduled(optimizer: Any, data: Data, k: int) -> Any:
    """A mini-batch with an lr that falls."""
    for group in optimizer.param_groups:
        group["lr"] = 1 - 0.1 * k
    return step_batch(optimizer, data, k)


def step_flat(optimizer: Any, data: Data, k: int) -> Any:
    """A mini-batch of inputs with three dimensions, from a closure."""
    rows = rows_of(k, len(data[0]))
    return optimizer.step(lambda: (data[0][rows].unflatten(1, (2, -1)), data[1][rows]))


WAYS: dict[str, Callable[[Any, Data, int], Any]] = {
    "bound": lambda optimizer, data, k: optimizer.step(),
    "bound with weights": lambda optimizer, data, k: optimizer.step(),
    "rows": step_rows,
    "mixed": step_mixed,
    "batch": step_batch,
    "batch with weights": step_weighted,
    "scheduled": step_scheduled,
    "flatten": step_flat,
    "one sweep": lambda optimizer, data, k: optimizer.step(*data[:2], sweeps=1 + k),
    "script": lambda optimizer, data, k: optimizer.step(),
    "fit": lambda optimizer, data, k: optimizer.fit(
        *data[:2], 2, 16, hold=0.0, noise=0.1, average=0.9, generator=torch.Generator().manual_seed(k)
    ),
    "fit to the end": lambda optimizer, data, k: optimizer.fit(*data[:2], 3, tol=0),
}
BOUND = ("bound", "bound with weights", "rows", "mixed", "script")


def digest(values: Iterable[object]) -> str:
    """A hash of tensors, numbers and strings, of whatever nesting."""
    result = hashlib.sha256()

    def add(value: object) -> None:
        if isinstance(value, Tensor):
            result.update(f"{value.dtype}{list(value.shape)}".encode())
            result.update(value.detach().contiguous().numpy().tobytes())
        elif isinstance(value, list | tuple):
            for entry in value:
                add(entry)
        elif isinstance(value, float):
            result.update(struct.pack("<d", math.nan if math.isnan(value) else value))
        else:
            result.update(repr(value).encode())

    add(list(values))
    return result.hexdigest()[:16]


def numbers_of(report: object) -> list[object]:
    """What a report says, by its public names."""
    found: list[object] = []
    for name in REPORTED:
        if name == "decrease" and hasattr(report, "certificate"):
            found.append([(block, fall) for block, _, fall in report.certificate.blocks])
        elif hasattr(report, name):
            found += [name, getattr(report, name)]
    if isinstance(report, torchbcd.DlamReport):
        with suppress(ValueError):  # where it is not measured
            found.append(tuple(report.condition_slack))
    return found


def theory_of(report: object) -> list[float]:
    """What BCD's diagnostics say of a sweep: to be compared up to rounding."""
    found = []
    for read in (
        lambda: report.residual,
        lambda: report.descent.decrease,
        lambda: report.descent.bound,
        lambda: report.lemma6_subgradient.norm,
    ):
        try:
            found.append(float(read()))
        except ValueError:  # not defined for this activation, order or splitting
            found.append(-1.0)
    return found


def sweep(case: Case, optimizer: Any, data: Data, numbers: Iterable[int]) -> tuple[list[float], list[Any], Any]:
    """The objectives and the reports of some sweeps, and the last report."""
    objectives, reports, report = [], [], None
    for k in numbers:
        if k == 2:
            for group in optimizer.param_groups:
                group.update(case.options)
        report = WAYS[case.way](optimizer, data, k)
        reports.append(list(report) if isinstance(report, tuple | list) else numbers_of(report))
        objectives.append(optimizer.objective())
    return objectives, reports, report


def fingerprint(case: Case, dtype: torch.dtype) -> dict[str, Any]:
    """The hashes of one case."""
    model, data = make_model(case, dtype), make_data(case, dtype)
    optimizer = case.build(model)
    if case.way in BOUND:
        optimizer.bind(*data[: 3 if case.way == "bound with weights" else 2])
    if case.way == "script":
        return scripted_fingerprint(case, model, optimizer.script_object(), data)
    objectives, reports, report = sweep(case, optimizer, data, range(SWEEPS))
    result: dict[str, Any] = {
        "weights": digest(model.parameters()),
        "variables": digest(optimizer.variables()),
        "objectives": digest(objectives),
        "reports": digest(reports),
    }
    twin = copy.deepcopy(model)
    other = case.build(twin)
    other.load_state_dict(optimizer.state_dict())
    if isinstance(report, torchbcd.SweepReport):
        result["theory"] = theory_of(report)
    again, _, _ = sweep(case, other, data, range(SWEEPS, SWEEPS + RESUMED))
    goes_on, _, _ = sweep(case, optimizer, data, range(SWEEPS, SWEEPS + RESUMED))
    result["resumed"] = digest([*twin.parameters(), again])
    result["continues to the bit"] = result["resumed"] == digest([*model.parameters(), goes_on])
    result["last objective"] = goes_on[-1]
    return result


def scripted_fingerprint(case: Case, model: nn.Sequential, script: Any, data: Data) -> dict[str, Any]:
    """The hashes of a TorchScript object over the model, and of one that goes on from its state."""

    def sweep(script: Any, count: int) -> list[float]:
        objectives = []
        for _ in range(count):
            script.step()
            objectives.append(script.objective())
        return objectives

    script.bind(*data[:2])
    result: dict[str, Any] = {"objectives": digest(sweep(script, SWEEPS)), "weights": digest(model.parameters())}
    twin = copy.deepcopy(model)
    other = case.build(twin).script_object()
    other.load_state(script.state())
    again, goes_on = sweep(other, RESUMED), sweep(script, RESUMED)
    result["resumed"] = digest([*twin.parameters(), again])
    result["continues to the bit"] = result["resumed"] == digest([*model.parameters(), goes_on])
    return {**result, "last objective": goes_on[-1]}


def bcd(**options: Any) -> Callable[[nn.Sequential], torchbcd.BCD]:
    """A builder of BCD."""
    return lambda model: torchbcd.BCD(model, **options)


def relaxed(**options: Any) -> Callable[[nn.Sequential], torchbcd.RelaxedBCD]:
    """A builder of RelaxedBCD, whose other numbers stay what they are when its defaults change."""
    return lambda model: torchbcd.RelaxedBCD(model, **{**BEFORE, **options})


def dlam(**options: Any) -> Callable[[nn.Sequential], torchbcd.DLAM]:
    """A builder of DLAM."""
    return lambda model: torchbcd.DLAM(model, **{"rho": [0.3, 0.1, 0.2], **options})


def dladmm(**options: Any) -> Callable[[nn.Sequential], torchbcd.DLADMM]:
    """A builder of DLADMM."""
    return lambda model: torchbcd.DLADMM(model, **{"rho": 0.4, "nu": 0.7, **options})


def both(name: str) -> dict[str, Any]:
    """The regularisers of weights and of states of that name."""
    weights, states = REGULARIZERS[name]
    return {"weight_regularizer": weights, "state_regularizer": states}


def bcd_cases() -> Iterator[tuple[str, Case]]:
    """BCD: splittings, orders, activations, losses, regularisers, penalties, depths and ways to step."""
    losses, names = cycle(LOSSES), cycle(REGULARIZERS)
    for splitting in (3, 2):
        for activation in ACTIVATIONS:
            loss, name = next(losses), next(names)
            options = {**PENALTIES, **both(name), "loss": loss, "splitting": splitting}
            yield (
                f"splitting {splitting}, {activation}, {loss}, {name}",
                Case(bcd(**options), hidden=(activation,)),
            )
        for order, inner in (("paper", 2), ("states_first", 1), ("states_first", 3)):
            scheme = {"splitting": splitting, "order": order, "inner_sweeps": inner}
            yield f"{splitting}, {order}, {inner}", Case(bcd(**PENALTIES, **scheme), hidden=("tanh", "relu"))
            name = next(names)
            build = bcd(**PENALTIES, **scheme, **both(name), loss=next(losses))
            yield f"{splitting}, {order}, {inner}, {name}", Case(build, hidden=("relu",))
        for way in ("bound with weights", "rows", "mixed", "batch", "batch with weights", "flatten"):
            build = bcd(**PENALTIES, splitting=splitting, loss=next(losses), loss_weight="mean")
            yield f"splitting {splitting}, {way}", Case(build, way, hidden=("leaky_relu", "sigmoid"))
        yield f"splitting {splitting}, no bias", Case(bcd(**PENALTIES, splitting=splitting), bias=False)
        yield f"splitting {splitting}, script", Case(bcd(**PENALTIES, splitting=splitting), "script")
        yield f"splitting {splitting}, one layer", Case(bcd(alpha=0.2, splitting=splitting), widths=(6, 3))
        deep = bcd(gamma=[0.5, 1, 2, 0.3], alpha=0.1, splitting=splitting, loss_weight=2.5)
        yield f"splitting {splitting}, four layers", Case(deep, widths=(6, 9, 7, 5, 3), output="relu")
        wide = bcd(gamma=0.7, rho=0.4, alpha=0.1, splitting=splitting)
        yield f"splitting {splitting}, 300 columns", Case(wide, widths=(300, 150, 300, 3), rows=200)
    yield "600 columns", Case(bcd(alpha=0.1), widths=(600, 20, 3), rows=120)
    yield "600 units, batch", Case(bcd(alpha=0.1, loss="hinge"), "batch", widths=(20, 600, 3), rows=120)
    yield "one output", Case(bcd(loss="hinge"), widths=(6, 8, 1))
    lists = {
        "weight_regularizer": [reg.L1(0.1), None, reg.L2(0.2)],
        "state_regularizer": [None, reg.L1(0.1), None],
    }
    yield "regularisers of their own", Case(bcd(**PENALTIES, **lists))
    yield "penalties that change", Case(bcd(**PENALTIES), options={"gamma": 3.0, "rho": None, "alpha": 0.7})
    yield "fit", Case(bcd(**PENALTIES), "fit to the end")
    yield "MAC", Case(lambda model: torchbcd.MAC(model, gamma=0.1, alpha=0.01), hidden=("sigmoid",))
    yield "ZhangBrand", Case(lambda model: torchbcd.ZhangBrand(model, gamma=0.1, alpha=0.01))


def relaxed_cases() -> Iterator[tuple[str, Case]]:
    """RelaxedBCD: activations, losses, regularisers, every option, ways to step."""
    losses, names = cycle(LOSSES), cycle(REGULARIZERS)
    for activation in ACTIVATIONS:
        loss, name = next(losses), next(names)
        if name == "nonnegative":
            name = next(names)
        build = relaxed(loss=loss, weight_regularizer=REGULARIZERS[name][0], output_penalty=0.7)
        yield f"{activation}, {loss}, {name}", Case(build, "batch", hidden=(activation,), clamp=name == "box")
        yield f"{activation}, plain", Case(relaxed(), "batch", hidden=(activation,), rows=9)
    for name, options in {
        "momentum": {"momentum": 0.7},
        "decay": {"weight_decay": [0.1, 0.02, 0.3], "lr": 0.5},
        "momentum, decay, guard": {
            "momentum": 0.9, "weight_decay": 0.01, "guard": True, "relaxation": 1.9, "damping": 1e-3,
        },
        "guard": {"guard": True, "relaxation": 1.9, "output_relaxation": 1.9, "damping": 1e-3},
        "cap": {"cap": 0.05, "state_steps": 2},
        "steps": {"state_steps": [3, 1, 2], "over_relaxation": 1.2},
        "row blocks": {"row_blocks": [2, 3, 4]},
        "row blocks, momentum": {"row_blocks": 4, "momentum": 0.5, "cap": 0.2},
        "per layer": {"relaxation": [0.1, 0.9, 0.4], "damping": [0.1, 1.0, 0.01], "penalty_ratio": 0.1},
        "mean": {"loss": "cross_entropy", "loss_weight": "mean", "certificate": True},
        "growth": {"relaxation": 0.3, "growth": 1.6},
    }.items():  # fmt: skip
        for bias in (True, False):
            words = "" if bias else ", no bias"
            yield f"{name}{words}", Case(relaxed(**options), "batch", hidden=("relu", "tanh"), bias=bias)
    for activation, loss in (("relu", "squared"), ("sigmoid", "cross_entropy")):
        build = relaxed(loss=loss, persistent=True, weight_regularizer=reg.L2(0.01))
        yield f"persistent, {activation}, {loss}", Case(build, hidden=(activation,))
    for way in ("batch", "batch with weights", "bound", "bound with weights", "fit", "script"):
        yield f"defaults, {way}", Case(torchbcd.RelaxedBCD, way)
    yield "bound", Case(relaxed(loss="logistic"))
    yield "scheduled", Case(relaxed(momentum=0.3), "scheduled")
    yield "flatten", Case(relaxed(), "flatten")
    yield "fit", Case(relaxed(), "fit")
    yield "script", Case(relaxed(momentum=0.3, state_steps=2), "script")
    yield "options that change", Case(relaxed(), "batch", options={"damping": 0.7, "cap": 0.1, "momentum": 0.2})
    yield "output activation", Case(relaxed(), "batch", output="tanh")
    yield "one layer", Case(relaxed(), "batch", widths=(6, 3))
    deep = (6, 9, 7, 8, 6, 3)
    yield "for any depth", Case(lambda model: torchbcd.RelaxedBCD.for_any_depth(model), "batch", widths=deep)
    yield "300 columns", Case(relaxed(), "batch", widths=(300, 320, 310, 3), rows=400)
    yield "600 columns", Case(relaxed(row_blocks=2), "batch", widths=(600, 90, 610, 3), rows=200)


def dlam_cases() -> Iterator[tuple[str, Case]]:
    """DLAM: activations, losses, regularisers, blocks, tolerances, solvers, ways to step."""
    losses, names = cycle(LOSSES), cycle(name for name in REGULARIZERS if name != "nonnegative")
    shrinking = torchbcd.EpsSchedule(0.5, 0.5, 0.05)
    for activation in MONOTONE:
        loss, name = next(losses), next(names)
        for blocks, options in (("strict", {"eps": shrinking}), ("joint", {"joint": True, "eps": 0.05})):
            build = dlam(loss=loss, weight_regularizer=REGULARIZERS[name][0], **options)
            yield (
                f"{blocks}, {activation}, {loss}, {name}",
                Case(build, hidden=(activation,), clamp=name == "box"),
            )
        next(names)
    for name, options in {
        "defaults": {},
        "joint, defaults": {"joint": True},
        "not monotone": {"monotone": False, "eps": shrinking},
        "capped": {"momentum": "capped", "joint": True, "eps": 0.05, "check_conditions": True},
        "no momentum": {"momentum": None, "eps": shrinking},
        "eq. (1)": {"weight_damping": 0.1, "joint": True, "eps": 0.0},
        "eq. (1), strict": {"weight_damping": 0.5, "eps": shrinking, "weight_regularizer": reg.L1(0.05)},
        "fista": {"output_solver": "fista", "joint": True, "rho": 0.5},
        "fista, squared": {"output_solver": "fista", "loss": "squared", "rho": 0.5, "loss_weight": 0.3},
        "eps of one's own": {"eps": lambda k: 1 / (k + 1)},
        "mean": {"loss_weight": "mean", "joint": True},
        "constant eps": {"eps": 0.1},
    }.items():
        yield name, Case(dlam(**options), hidden=("tanh", "relu"))
    for way in ("bound with weights", "batch", "batch with weights", "one sweep", "script", "flatten"):
        yield way, Case(dlam(joint=True, eps=0.02), way)
    yield "strict, script", Case(dlam(eps=shrinking), "script")
    yield "no bias", Case(dlam(joint=True), bias=False)
    yield "penalties that change", Case(dlam(joint=True), options={"rho": 0.9})
    yield "one layer", Case(dlam(rho=1.0, eps=0.1), widths=(6, 3))
    yield "four layers", Case(dlam(rho=0.1, eps=shrinking), widths=(6, 9, 7, 5, 3), hidden=("hardsigmoid",))
    yield "300 columns", Case(dlam(joint=True, weight_damping=0.1), widths=(300, 310, 20, 3), rows=400)


def dladmm_cases() -> Iterator[tuple[str, Case]]:
    """DLADMM: activations, losses, regularisers, ways to step."""
    losses, names = cycle(LOSSES), cycle(name for name in REGULARIZERS if name != "nonnegative")
    for activation in (*MONOTONE, "polynomial"):
        loss, name = next(losses), next(names)
        build = dladmm(loss=loss, weight_regularizer=REGULARIZERS[name][0])
        yield f"{activation}, {loss}, {name}", Case(build, hidden=(activation,), clamp=name == "box")
    for way in ("bound with weights", "batch", "script", "flatten"):
        yield way, Case(dladmm(loss_weight="mean"), way, hidden=("tanh", "relu"))
    yield "no bias", Case(dladmm(), bias=False)
    yield "penalties that change", Case(dladmm(), options={"penalty": 0.9})
    yield "one layer", Case(dladmm(), widths=(6, 3))
    yield "300 columns", Case(dladmm(), widths=(300, 310, 20, 3), rows=400)


def cases() -> Iterator[tuple[str, Case]]:
    """All, by name."""
    for optimizer, found in (
        ("BCD", bcd_cases()),
        ("RelaxedBCD", relaxed_cases()),
        ("DLAM", dlam_cases()),
        ("DLADMM", dladmm_cases()),
    ):
        for name, case in found:
            yield f"{optimizer}: {name}", case


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The parts of a fingerprint that differ, the diagnostics but for rounding."""
    found = [part for part in sorted({*old, *new} - {"theory"}) if old.get(part) != new.get(part)]
    pairs = zip(old.get("theory", []), new.get("theory", []), strict=True)
    if not all(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9) or a == b for a, b in pairs):
        found.append("theory")
    return found


def compare(old: dict[str, Any], new: dict[str, Any]) -> int:
    """Print which cases differ, and in what; how many do."""
    different = 0
    for name in sorted({*old, *new}):
        if name not in old or name not in new:
            print(f"{name}: only {'after' if name in new else 'before'}")
        elif parts := differences(old[name], new[name]):
            values = (f"{prints[name]['last objective']!r}" for prints in (old, new))
            print(f"{name}: {', '.join(parts)} (last objective {' -> '.join(values)})")
        else:
            continue
        different += 1
    print(f"{different} of {len({*old, *new})} cases differ")
    return different


def main() -> None:
    """Write fingerprints, or compare them with those of a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file to write the fingerprints to")
    parser.add_argument("--compare", type=Path, help="file of fingerprints to compare with")
    parser.add_argument("--only", default="", help="a part of the names of the cases to run")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    prints = {
        f"{name}, {str(dtype).removeprefix('torch.')}": fingerprint(case, dtype)
        for name, case in cases()
        if arguments.only in name
        for dtype in (torch.float32, torch.float64)
    }
    print(f"{len(prints)} cases with {torchbcd.__file__}, torch {torch.__version__}")
    if arguments.out:
        arguments.out.write_text(json.dumps({"torch": torch.__version__, "cases": prints}, indent=1))
    if arguments.compare:
        before = json.loads(arguments.compare.read_text())
        if before["torch"] != torch.__version__:
            sys.exit(f"the fingerprints of {arguments.compare} are of torch {before['torch']}")
        old = {name: found for name, found in before["cases"].items() if arguments.only in name}
        sys.exit(bool(compare(old, json.loads(json.dumps(prints)))))


if __name__ == "__main__":
    main()
