"""Options that are out of range: named, with their layer, wherever they are set, and nothing changes."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import make_data, make_mlp
from contracts import build, unchanged
from tables import METHODS
from torch import nn

import torchbcd
from torchbcd import regularizers as reg

pytestmark = pytest.mark.usefixtures("one_thread")

NAN, INF = math.nan, math.inf
NOT_POSITIVE = (0.0, -1.0, NAN, INF)
POSITIVE = "{} of layer {} must be a finite positive number"

# (method, argument, name in the param groups) -> values that are refused, and the text. Every layer has one.
LAYER_OPTIONS = {
    **{("BCD", name, name): (NOT_POSITIVE, POSITIVE) for name in ("gamma", "rho", "alpha", "alpha_weight")},
    **{("RelaxedBCD", name, name): (NOT_POSITIVE, POSITIVE) for name in ("damping", "penalty_ratio")},
    ("RelaxedBCD", "relaxation", "relaxation"): (
        (-0.1, 2.0, NAN, INF),
        r"{} \(times lr\) of layer {} must be in \[0, 2\)",
    ),
    ("RelaxedBCD", "over_relaxation", "over_relaxation"): (
        (0.0, -1.0, 2.0, NAN),
        r"{} of layer {} must be in \(0, 2\)",
    ),
    ("RelaxedBCD", "state_steps", "state_steps"): ((0, -1), "{} of layer {} must be at least 1"),
    ("RelaxedBCD", "row_blocks", "row_blocks"): ((0, -1), "{} of layer {} must be at least 1"),
    ("RelaxedBCD", "cap", "cap"): ((-1.0, NAN, INF), "{} of layer {} must be "),
    ("RelaxedBCD", "momentum", "momentum"): ((-0.1, 1.0, NAN), r"{} of layer {} must be in \[0, 1\)"),
    ("RelaxedBCD", "weight_decay", "weight_decay"): (
        (-0.1, 1.0, NAN),
        r"{} \(times lr\) of layer {} must be in \[0, 1\)",
    ),
    ("DLAM", "rho", "rho"): (NOT_POSITIVE, POSITIVE),
}
# Where NaN stands for None in TorchScript.
NONE_IN_SCRIPT = {("BCD", "rho"), ("BCD", "alpha_weight")}
NONE_IN_SCRIPT |= {("RelaxedBCD", name) for name in ("cap", "damping", "momentum", "weight_decay")}
NOT_NUMBERS = {"text": "1", "object": object()}
CASES = [(*key, bad, text) for key, (values, text) in LAYER_OPTIONS.items() for bad in values]
CASES += [("DLADMM", argument, "penalty", bad, POSITIVE) for argument in ("rho", "nu") for bad in NOT_POSITIVE]


def make(method, **options):
    return getattr(torchbcd, method)(make_mlp([6, 5, 4, 3]), **options)


def default(method, name):
    value = make(method).param_groups[0][name]
    return 0.5 if value is None else value


@pytest.mark.parametrize(("method", "argument", "name", "bad", "text"), CASES)
class TestOutOfRange:
    def test_in_the_constructor(self, method, argument, name, bad, text):
        layer = 3 if (method, argument) == ("DLADMM", "rho") else 1
        given = {"nu": 1.0} if layer == 3 else {}
        with pytest.raises(ValueError, match=text.format(name, layer)):
            make(method, **given, **{argument: bad})
        if (method, argument, name) in LAYER_OPTIONS:
            good = default(method, name)
            with pytest.raises(ValueError, match=text.format(name, 2)):
                make(method, **{argument: [good, bad, good]})

    def test_in_the_param_groups(self, method, argument, name, bad, text):
        model, optimizer, x, y = build(METHODS[method], sweeps=1)
        group = optimizer.param_groups[1]
        good = group[name]
        with unchanged(model, optimizer):
            group[name] = bad
            for step in (optimizer.step, lambda: optimizer.step(x, y)):
                with pytest.raises(ValueError, match=text.format(name, 2)):
                    step()
            group[name] = good
        assert optimizer.step().sweep == 2

    def test_in_a_script_object(self, method, argument, name, bad, text):
        script = make(method).script_object()
        script.bind(*make_data(20, 6, 3))
        before = script.option(name)
        if math.isnan(bad) and (method, name) in NONE_IN_SCRIPT:
            return  # there it stands for None
        good = float(default(method, name))
        with pytest.raises(ValueError, match=text.format(name, 2)):
            script.set_option(name, [good, bad, good])
        assert script.option(name) == pytest.approx(before, nan_ok=True)
        script.step()


@pytest.mark.parametrize(("method", "argument", "name"), LAYER_OPTIONS)
class TestWrongTypes:
    def test_count(self, method, argument, name):
        with pytest.raises(ValueError, match=f"{argument} must hold one number for each of the 3 layers"):
            make(method, **{argument: [1] * 4})

    @pytest.mark.parametrize("bad", NOT_NUMBERS.values(), ids=NOT_NUMBERS)
    def test_type(self, method, argument, name, bad):
        self.refused(method, argument, name, bad)

    def test_bool(self, method, argument, name):
        self.refused(method, argument, name, True)

    @staticmethod
    def refused(method, argument, name, bad):
        good = default(method, name)
        for value in (bad, [good, bad, good]):
            with pytest.raises(TypeError, match=f"{argument} must be a (whole )?number"):
                make(method, **{argument: value})
        model, optimizer, _, _ = build(METHODS[method], sweeps=1)
        group = optimizer.param_groups[1]
        good = group[name]
        with unchanged(model, optimizer):
            group[name] = bad
            with pytest.raises(TypeError, match=f"{name} must be a (whole )?number"):
                optimizer.step()
            group[name] = good
        optimizer.step()


REFUSED = [
    *((method, "loss_weight", bad, ValueError, "loss_weight must be a finite positive number")
      for method in METHODS for bad in NOT_POSITIVE),
    *((method, "loss_weight", "sum", TypeError, "loss_weight must be a number") for method in METHODS),
    *((method, "loss", "absolute", ValueError, r"loss must be one of 'squared'.* \(got 'absolute'\)")
      for method in METHODS),
    *((method, "loss", nn.MSELoss(), TypeError, "loss must be a name or a torchbcd.losses object")
      for method in METHODS),
    *((method, "weight_regularizer", "l1", TypeError,
       "weight_regularizer must be a torchbcd.regularizers object") for method in METHODS),
    *((method, "weight_regularizer", [None, 1.0, None], TypeError,
       "weight_regularizer must be a torchbcd.regularizers object") for method in METHODS),
    *((method, "weight_regularizer", [None, None], ValueError,
       "weight_regularizer must hold one entry for each of the 3 layers") for method in METHODS),
    ("BCD", "state_regularizer", [1.0] * 3, TypeError,
     "state_regularizer must be a torchbcd.regularizers object"),
    ("BCD", "splitting", 4, ValueError, r"splitting must be 2 or 3 \(got 4\)"),
    *(("BCD", "order", bad, ValueError, message) for bad, message in (
        ("random", r"order must be 'paper', .* or a list of blocks, each one of VUW .* \(got 'random'\)"),
        ([("V", 4)], r"with a layer from 1 to 3 \(got 'V4'\)"),
        ([("X", 1)], r"each one of VUW with a layer from 1 to 3 \(got 'X1'\)"),
        ([], "order must have every block at least once"),
        ([(v, i) for i in (3, 2, 1) for v in "VU"], r"W3 is missing"),
    )),
    *(("BCD", "order", bad, TypeError, "order must be a name, or a list of blocks") for bad in (
        3, [3], [("V", 1.5)], [(1, 1)], ["V"],
    )),
    ("RelaxedBCD", "loss_weight", "paper", ValueError, "loss_scaling must be one of 'sum', 'mean'"),
    ("BCD", "inner_sweeps", 0, ValueError, r"inner_sweeps must be at least 1 \(got 0\)"),
    ("BCD", "inner_sweeps", 1.5, TypeError, "inner_sweeps must be a whole number"),
    ("RelaxedBCD", "state_steps", 1.5, TypeError, "state_steps must be a whole number"),
    ("RelaxedBCD", "row_blocks", 1.5, TypeError, "row_blocks must be a whole number"),
    *(("RelaxedBCD", "output_penalty", bad, ValueError, "output_penalty must be a finite positive number")
      for bad in NOT_POSITIVE),
    *(("RelaxedBCD", "growth", bad, ValueError, "growth must be at least 1")
      for bad in (0.5, NAN, INF)),
    ("RelaxedBCD", "lr", 7.0, ValueError, r"relaxation \(times lr\) of layer 1 must be in \[0, 2\)"),
    ("RelaxedBCD", "lr", "1", TypeError, "lr must be a number"),
    ("DLAM", "momentum", "heavy", ValueError, "momentum must be one of"),
    ("DLAM", "output_solver", "newton", ValueError, "output_solver must be one of"),
    *(("DLAM", "weight_damping", bad, ValueError, "weight_damping must be a finite number >= 0")
      for bad in (-1.0, INF)),
    *(("DLAM", "sufficient_decrease", bad, ValueError, r"sufficient_decrease must be in \[0, 1\)")
      for bad in (-1e-3, 1.0, NAN)),
    ("DLAM", "rho", "1", TypeError, "rho must be a number"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "name", "bad", "error", "message"), REFUSED)
def test_refused_in_the_constructor(method, name, bad, error, message):
    with pytest.raises(error, match=message):
        make(method, **{name: bad})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relaxation": 1.0, "lr": 2.5}, r"relaxation \(times lr\) of layer 1 must be in \[0, 2\)"),
        ({"weight_decay": 0.6, "lr": 2.0}, r"weight_decay \(times lr\) of layer 1 must be in \[0, 1\)"),
        ({"relaxation": 1.5, "weight_regularizer": reg.L1(0.1)}, r"in \[0, 1\] with a regulariser"),
        ({"row_blocks": 2, "weight_regularizer": reg.L2(0.1)}, "must be 1 where it has a weight_regularizer"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(ValueError, match=message):
        make("RelaxedBCD", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "layer_parallel", "splitting": 2}, "order 'layer_parallel' needs splitting 3"),
        (
            {"order": [(v, i) for i in (3, 2, 1) for v in "VUW"], "splitting": 2},
            r"each one of VW .* \(got 'U3'\)",
        ),
        (
            {"order": [(v, i) for i in (3, 2, 1) for v in "VUW"], "inner_sweeps": 2},
            "inner_sweeps must be 1 where",
        ),
    ],
)
def test_orders_that_do_not_go_together(options, message):
    with pytest.raises(ValueError, match=message):
        make("BCD", **options)


def test_sums_of_regularizers():
    assert reg.L2(0.5) + reg.Nonnegative() == reg.Regularizer(l2=0.5, low=0.0)
    assert reg.L1(0.5) + reg.ElasticNet(0.25, 1.0) + reg.Box(-1, 2) + reg.Nonnegative() == reg.Regularizer(
        0.75, 1.0, 0.0, 2.0
    )
    with pytest.raises(ValueError, match="the intervals of the two must meet"):
        _ = reg.Box(1.0, 2.0) + reg.Box(-2.0, -1.0)
    with pytest.raises(TypeError):
        _ = reg.L2(0.5) + 1.0


@pytest.mark.parametrize(
    ("starts", "error", "message"),
    [
        ({"v": [torch.zeros(20, 7)]}, ValueError, r"v must hold one tensor for each of the 3 layers \(got 1\)"),
        ({"u": torch.zeros(20, 7)}, TypeError, "u must be a list with one tensor for each layer"),
        ({"u": [torch.zeros(20, 7), None, None]}, TypeError, "u of layer 2 must be a torch.Tensor"),
        ({"v": [torch.zeros(19, 8), torch.zeros(20, 7), torch.zeros(20, 3)]}, ValueError,
         r"v of layer 1 must have shape \(20, 8\) \(got \[19, 8\]\)"),
        ({"v": [torch.zeros(20, 8).double(), torch.zeros(20, 7), torch.zeros(20, 3)]}, TypeError,
         "v of layer 1 must have the dtype of the model"),
        ({"v": [torch.zeros(20, 8), torch.full((20, 7), NAN), torch.zeros(20, 3)]}, ValueError,
         "v of layer 2 must be finite"),
        ({"v": [torch.zeros(20, 8), torch.zeros(20, 7), torch.full((20, 3), 2.0)]}, ValueError,
         "v of layer 3 must lie within the bounds of its state_regularizer, -1 and 1"),
    ],
)  # fmt: skip
def test_starting_variables_refused(starts, error, message):
    model = make_mlp([6, 8, 7, 3], dtype=torch.float32)
    optimizer = torchbcd.BCD(model, state_regularizer=reg.Box(-1.0, 1.0))
    x, y = make_data(20, 6, 3, dtype=torch.float32)
    optimizer.bind(x, y)
    before = optimizer.objective()
    with pytest.raises(error, match=message):
        optimizer.bind(x, y, **starts)
    assert optimizer.objective() == before
    with pytest.raises(ValueError, match="u is a variable with splitting 3 alone"):
        torchbcd.BCD(model, splitting=2).bind(x, y, u=[torch.zeros(20, d) for d in (8, 7, 3)])


@pytest.mark.parametrize(("eps", "joint"), [(-1.0, True), (0.0, False), (NAN, False), (INF, True)])
def test_eps(eps, joint):
    said = "eps(_start)? must be a finite (positive )?number"
    with pytest.raises(ValueError, match=said):
        make("DLAM", eps=eps, joint=joint)
    optimizer = make("DLAM", eps=1.0, joint=joint)
    optimizer.eps = eps
    with pytest.raises(ValueError, match=said):
        optimizer.bind(*make_data(20, 6, 3))


def test_one_for_each_layer():
    lists = {"BCD": "gamma", "RelaxedBCD": "damping", "DLAM": "rho"}
    for method, name in lists.items():
        optimizer = make(method, **{name: [0.1, 0.2, 0.3]}, weight_regularizer=[reg.L1(0.1), None, reg.L2(0.2)])
        assert [group[name] for group in optimizer.param_groups] == [0.1, 0.2, 0.3]
        assert [group["weight_regularizer"] for group in optimizer.param_groups] == [
            reg.L1(0.1),
            None,
            reg.L2(0.2),
        ]
    optimizer = make("DLADMM", rho=0.3, nu=0.1)
    assert [group["penalty"] for group in optimizer.param_groups] == [0.1, 0.1, 0.3]


def test_a_script_object_knows_the_options():
    for method, _, name in LAYER_OPTIONS:
        script = make(method).script_object()
        assert name in script.option_names()
        assert len(script.option(name)) == 3
    with pytest.raises(ValueError, match="option must be one of"):
        script.set_option("no such", [1.0])
    with pytest.raises((ValueError, RuntimeError)):
        script.set_option(name, [0.1, 0.2])
    assert torch.tensor(script.option(name)).isfinite().all()
