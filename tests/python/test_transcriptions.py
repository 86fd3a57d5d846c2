"""The optimizers against their papers' algorithms, transcribed line by line and solved by slow global searches.

paper_bcd.py has Algorithms 1 and 2 of Zeng et al., paper_dlam.py those of Wang et al.; slow_search.py solves
their blocks. test_random_penalties.py has what holds for penalties of any size.
"""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import paper_bcd
import pytest
import torch
from conftest import MONOTONE, make_data, make_mlp
from more_activations import FORMULAS
from objectives import LOSSES, REGULARIZERS
from paper_bcd import Algorithm1, Algorithm2, Problem
from paper_dlam import Chosen, Dlam
from torch import nn

import torchbcd

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS = 7
# Of an entry, relative to the largest of its array. A block with a closed form, or of numbers, is found to
# rounding; a quadratic with a 1-norm or bounds by iterations that end where no entry moves by more than 1e-10.
EXACT, ITERATIVE = 1e-10, 1e-6
MISSED = 0.02  # of the decrease that a search from many starts finds, where an activation is inside the block
# Of a block with this polynomial inside, which rises and falls, the library's few starts find less.
MISSED_HILLY = 0.25
MISSED_FLAT = 0.05  # a tanhshrink, which never falls, has one start, and is flat at zero


def tolerance(regularizer):
    return EXACT if regularizer in ("none", "l2") else ITERATIVE


def loss_for(hidden, regularizer, activations=tuple(paper_bcd.ACTIVATIONS)):
    """The losses take turns, so that each meets all activations and all regularisers."""
    place = activations.index(hidden) + list(REGULARIZERS).index(regularizer)
    return LOSSES[place % len(LOSSES)]


def joined(weights, biases):
    """W with its bias, as the transcriptions have it."""
    pairs = zip(weights, biases, strict=True)
    return [w.numpy() if b is None else np.hstack([w.numpy(), b.numpy()[:, None]]) for w, b in pairs]


def weights_of(model):
    linears = [m for m in model if isinstance(m, nn.Linear)]
    biases = [None if m.bias is None else m.bias.detach().clone() for m in linears]
    return joined([m.weight.detach().clone() for m in linears], biases)


def columns(tensors):
    return [t.numpy().T for t in tensors]


def deviation(ours, theirs):
    """The largest of all entries, relative to the largest of each array."""
    return max(np.abs(a - b).max() / max(1, np.abs(b).max()) for a, b in zip(ours, theirs, strict=True))


def build_bcd(widths, hidden, loss, regularizer, splitting, *, bias=True, covers_bias=False, **options):
    """The same problem twice: the optimizer, bound to data, and the transcription. Activations take turns."""
    depth = len(widths) - 1
    names = [hidden[i % len(hidden)] for i in range(depth - 1)] + ["identity"]
    model = make_mlp(widths, hidden=[name.removeprefix("hilly ") for name in hidden], bias=bias)
    for i, name in enumerate(names):
        if name == "hilly polynomial":
            model[2 * i + 1] = torchbcd.nn.Polynomial([0.5, -1.0, 0.0, 0.3])
    penalties = {
        "gamma": [0.7, 1.6, 1.1, 0.4][:depth],
        "rho": [1.2, 0.5, 0.9, 1.4][:depth],
        "alpha": [0.3, 0.6, 0.2, 0.5][:depth],
        "alpha_weight": [0.4, 0.25, 0.7, 0.3][:depth],
    }
    r, s = REGULARIZERS[regularizer]
    optimizer = torchbcd.BCD(
        model,
        loss,
        weight_regularizer=r,
        state_regularizer=s,
        regularize_bias=covers_bias,
        splitting=splitting,
        **{"loss_weight": "mean", **penalties, **options},  # the 1/n of R_n
    )
    x, y = make_data(ROWS, widths[0], widths[-1])
    optimizer.bind(x, y)
    one_hot = np.eye(widths[-1])[y.numpy()]
    more = {"covers_bias": covers_bias, "squares": 1.0 if options.get("loss_weight") == "paper" else 0.5}
    problem = Problem(names, loss, x.numpy().T, one_hot.T, r=r, s=s, bias=bias, **more, **penalties)
    return optimizer, (Algorithm1 if splitting == 2 else Algorithm2)(problem, weights_of(model))


class TestAlgorithm2:
    """Every block is a proximal update with one minimiser, up to ties: whole sweeps agree."""

    @staticmethod
    def assert_agree(optimizer, literal, regularizer, sweeps=3):
        for _ in range(sweeps):
            optimizer.step()
            literal.sweep()
            w, b, u, v = optimizer.variables()
            deviations = [
                deviation(joined(w, b), literal.w),
                deviation(columns(u), literal.u),
                deviation(columns(v), literal.v),
            ]
            assert max(deviations) < tolerance(regularizer), f"W, U, V differ by {deviations}"
            assert optimizer.objective() == pytest.approx(literal.objective(), rel=tolerance(regularizer))

    @pytest.mark.parametrize("regularizer", REGULARIZERS)
    @pytest.mark.parametrize("hidden", paper_bcd.ACTIVATIONS)
    def test_whole_sweeps(self, hidden, regularizer):
        loss = loss_for(hidden, regularizer)
        self.assert_agree(*build_bcd([3, 4, 3, 3], [hidden], loss, regularizer, 3), regularizer)

    @pytest.mark.parametrize(
        ("hidden", "regularizer"), zip(FORMULAS, itertools.cycle(REGULARIZERS), strict=False)
    )
    def test_more_activations(self, hidden, regularizer):
        loss = loss_for(hidden, regularizer, tuple(FORMULAS))
        self.assert_agree(*build_bcd([3, 4, 3, 3], [hidden], loss, regularizer, 3), regularizer)

    @pytest.mark.parametrize("loss", LOSSES)
    @pytest.mark.parametrize("regularizer", ["none", "box"])
    def test_mixed_activations_without_biases(self, loss, regularizer):
        hidden = ["tanh", "relu", "silu"]
        pair = build_bcd([3, 3, 4, 3, 2], hidden, loss, regularizer, 3, bias=False)
        self.assert_agree(*pair, regularizer)


LAYERS = (3, 2, 1)
ORDERS = {
    "layer_parallel": [(block, i) for block in "VUW" for i in LAYERS],
    "upwards": [(block, i) for i in (1, 2, 3) for block in "WUV"],
    "weights first": [(block, i) for block in "WVU" for i in (2, 1, 3)],
    "some twice": [("W", 3), *((block, i) for i in LAYERS for block in "UVWV"), ("U", 2), ("W", 3), ("W", 1)],
}


class TestFreedoms:
    """What [Z] leaves open: orders of blocks, r_i of all of W_i, the scale of its loss, starting variables."""

    @pytest.mark.parametrize("name", ORDERS)
    @pytest.mark.parametrize("regularizer", ["l2", "l1"])
    @pytest.mark.parametrize("frozen", [False, True])
    def test_orders_of_algorithm_2(self, regularizer, name, frozen):
        order = name if name == "layer_parallel" else ORDERS[name]
        pair = build_bcd([3, 4, 3, 3], ["tanh", "relu"], "hinge", regularizer, 3, order=order)
        optimizer, literal = pair
        for parameter in optimizer.param_groups[1]["params"]:
            parameter.requires_grad_(not frozen)
        blocks = [(block, i - 1) for block, i in ORDERS[name] if not (frozen and (block, i) == ("W", 2))]
        previous = optimizer.objective()
        for _ in range(4):
            optimizer.step()
            literal.sweep(blocks)
            w, b, u, v = optimizer.variables()
            assert deviation(joined(w, b), literal.w) < tolerance(regularizer)
            assert deviation(columns(u), literal.u) < tolerance(regularizer)
            assert deviation(columns(v), literal.v) < tolerance(regularizer)
            assert optimizer.objective() == pytest.approx(literal.objective(), rel=tolerance(regularizer))
            assert optimizer.objective() <= previous
            previous = optimizer.objective()

    @pytest.mark.parametrize("name", ["upwards", "some twice"])
    @pytest.mark.parametrize("regularizer", ["none", "box"])
    def test_orders_of_algorithm_1(self, regularizer, name):
        order = [(block, i) for block, i in ORDERS[name] if block != "U"]
        optimizer, literal = build_bcd([2, 3, 2, 3], ["identity"], "logistic", regularizer, 2, order=order)
        for _ in range(3):
            optimizer.step()
            for block, i in order:
                literal.minimise(block, i - 1)
            w, b, _, v = optimizer.variables()
            assert deviation(joined(w, b), literal.w) < tolerance(regularizer)
            assert deviation(columns(v), literal.v) < tolerance(regularizer)

    @pytest.mark.parametrize("regularizer", [*(name for name in REGULARIZERS if name != "none"), "l2, dual form"])
    def test_regularized_biases(self, regularizer):
        widths = [12, 10, 3, 3] if regularizer == "l2, dual form" else [3, 4, 3, 3]  # more columns than rows
        regularizer = regularizer.split(",")[0]
        loss = loss_for("relu", regularizer)
        pair = build_bcd(widths, ["relu", "tanh"], loss, regularizer, 3, covers_bias=True)
        TestAlgorithm2.assert_agree(*pair, regularizer)

    @pytest.mark.parametrize("regularizer", [name for name in REGULARIZERS if name != "none"])
    def test_regularized_biases_of_algorithm_1(self, regularizer):
        pair = build_bcd([2, 3, 2, 3], ["identity"], "squared", regularizer, 2, covers_bias=True)
        optimizer, literal = pair
        optimizer.step()
        for block, i in literal.blocks():
            literal.minimise(block, i)
        w, b, _, v = optimizer.variables()
        assert deviation(joined(w, b), literal.w) < tolerance(regularizer)
        assert deviation(columns(v), literal.v) < tolerance(regularizer)
        assert optimizer.objective() == pytest.approx(literal.objective(), rel=tolerance(regularizer))

    @pytest.mark.parametrize("loss", LOSSES)
    def test_the_papers_risk(self, loss):
        """Eq. (2): 1/n of the sum of |v - y|^2, or of another loss."""
        pair = build_bcd([3, 4, 3, 3], ["relu"], loss, "none", 3, loss_weight="paper")
        TestAlgorithm2.assert_agree(*pair, "none")

    @pytest.mark.parametrize("given", ["uv", "u", "v"])
    def test_starting_variables(self, given):
        optimizer, literal = build_bcd([3, 4, 3, 3], ["relu", "tanh"], "squared", "none", 3)
        rng = np.random.default_rng(1)
        x, y = literal.v[0].T, np.argmax(literal.problem.y, 0)
        if "u" in given:
            literal.u = [rng.standard_normal(u.shape) for u in literal.u]
        for i in range(3):
            if "u" not in given:
                literal.u[i] = literal.product(i)
            shape = literal.v[i + 1].shape
            literal.v[i + 1] = (
                rng.standard_normal(shape) if "v" in given else literal.problem.sigma(i, literal.u[i])
            )
        starts = {"u": literal.u, "v": literal.v[1:]}
        tensors = {name: [torch.tensor(t.T.copy()) for t in starts[name]] for name in given}
        optimizer.bind(torch.tensor(x.copy()), torch.tensor(y), **tensors)
        assert optimizer.objective() == pytest.approx(literal.objective(), rel=EXACT)
        for name in given:
            tensors[name][0].zero_()  # they were copied
        TestAlgorithm2.assert_agree(optimizer, literal, "none")


class TestAlgorithm1:
    """Block by block, each from where the library's blocks before it have led."""

    @pytest.mark.parametrize(
        ("hidden", "regularizer"),
        [*itertools.product(paper_bcd.ACTIVATIONS, REGULARIZERS), *((name, "none") for name in FORMULAS)],
    )
    def test_blocks(self, hidden, regularizer):
        known = paper_bcd.ACTIVATIONS if hidden in paper_bcd.ACTIVATIONS else FORMULAS
        loss = loss_for(hidden, regularizer, tuple(known))
        optimizer, literal = build_bcd([2, 3, 2, 3], [hidden], loss, regularizer, 2)
        differ, missed = {}, {}
        may_miss = {"hilly polynomial": MISSED_HILLY, "tanhshrink": MISSED_FLAT}.get(hidden, MISSED)
        for sweep in (1, 2):
            optimizer.step()
            w, b, _, v = optimizer.variables()
            reached = {"W": joined(w, b), "V": columns(v[1:])}
            for block, i in literal.blocks():
                name, now = f"{block}_{i + 1} of sweep {sweep}", reached[block][i]
                if literal.is_exact(block, i):
                    literal.minimise(block, i)
                    distance = deviation([now], [literal.block(block, i)])
                    if distance >= tolerance(regularizer):
                        differ[name] = distance
                else:
                    before, least = literal.before_and_least(block, i)
                    value = literal.rows_objective(block, i)(now if block == "W" else now.T).sum()
                    if value - least > may_miss * (before - least) + 1e-10 * before:
                        missed[name] = (value - least) / (before - least)
                literal.set_block(block, i, now)
            assert optimizer.objective() == pytest.approx(literal.objective(), rel=1e-10)
        assert not differ, differ
        assert not missed, missed

    @pytest.mark.parametrize("loss", LOSSES)
    @pytest.mark.parametrize("regularizer", REGULARIZERS)
    def test_whole_sweeps_of_linear_nets(self, regularizer, loss):
        optimizer, literal = build_bcd([2, 3, 2, 3], ["identity"], loss, regularizer, 2)
        for _ in range(3):
            optimizer.step()
            for block, i in literal.blocks():
                literal.minimise(block, i)
            w, b, _, v = optimizer.variables()
            deviations = deviation(joined(w, b), literal.w), deviation(columns(v), literal.v)
            assert max(deviations) < tolerance(regularizer), f"W, V differ by {deviations}"


class TestDlam:
    """The paper's variants: z and a one after the other, eq. (3) for W, Nesterov's factors, a constant eps.

    From a forward pass no hidden layer would move (docs/dlam.md), so the weights are changed after it.
    """

    @staticmethod
    def build(
        hidden,
        loss,
        regularizer,
        monotone,
        *,
        eps=0.1,
        rho=(0.8, 1.5, 1.1),
        shrink=0.7,
        sufficient_decrease=1e-3,
        exact=False,
    ):
        r, _ = REGULARIZERS[regularizer]
        # A squared norm gives the bias's step a curvature of its own; the paper has no biases.
        bias = regularizer != "l2"
        widths = [3, 4, 3, 3]
        model = make_mlp(widths, hidden=hidden, bias=bias)
        options = {"sufficient_decrease": sufficient_decrease, "weight_damping": 0.0 if exact else None}
        optimizer = torchbcd.DLAM(model, loss, list(rho), eps, monotone, r, **options)
        x, y = make_data(ROWS, widths[0], widths[-1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer.bind(x, y)
        one_hot = np.eye(widths[-1])[y.numpy()]
        names = [hidden, hidden, "identity"]
        problem = Problem(names, loss, x.numpy().T, one_hot.T, rho=list(rho), r=r, bias=bias)
        literal = Dlam(problem, weights_of(model), eps, monotone, sufficient_decrease, exact)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(shrink)
        literal.set_weights(weights_of(model))
        return optimizer, literal

    def compare(self, optimizer, literal, sweeps, tolerance=EXACT):
        """Returns how many blocks were done again."""
        redone = 0
        for _ in range(sweeps):
            report = optimizer.step()
            literal.sweep(Chosen(report.theta, report.tau, report.weight_omega, report.state_omega))
            w, b, z, a = optimizer.variables()
            deviations = [
                deviation(joined(w, b), literal.w),
                deviation(columns(z), literal.z),
                deviation(columns(a), literal.a),
            ]
            assert max(deviations) < tolerance, f"W, z, a differ by {deviations}"
            assert report.objective == pytest.approx(literal.objective(), rel=tolerance)
            assert report.redone == literal.redone
            if not literal.exact:
                assert min(literal.slack) > -1e-11  # condition (2) and its twin
            for least, theta in literal.least_theta:
                assert theta == pytest.approx(least, rel=1e-6)
            redone += report.redone
        return redone

    @pytest.mark.parametrize("regularizer", REGULARIZERS)
    @pytest.mark.parametrize(
        ("hidden", "monotone"), [*((h, True) for h in MONOTONE), ("relu", False), ("sigmoid", False)]
    )
    def test_whole_sweeps(self, hidden, regularizer, monotone):
        loss = loss_for(hidden, regularizer, MONOTONE)
        self.compare(*self.build(hidden, loss, regularizer, monotone), sweeps=12)

    def test_steps_are_done_again(self):
        """What mDLAM does that DLAM does not: the transcription agrees on which blocks."""
        redone = [
            self.compare(*self.build(hidden, loss, regularizer, True), sweeps=12)
            for hidden, loss, regularizer in (
                ("relu", "logistic", "none"),
                ("relu", "logistic", "box"),
                ("sigmoid", "hinge", "nonnegative"),
                ("hardsigmoid", "cross_entropy", "l1"),
            )
        ]
        assert min(redone) >= 2
        assert sum(redone) >= 15

    @pytest.mark.parametrize("regularizer", REGULARIZERS)
    @pytest.mark.parametrize("hidden", ["tanh", "leaky_relu"])
    def test_weights_by_eq_1(self, hidden, regularizer):
        """The subproblem that eq. (3) stands for, with no proximal term."""
        loss = loss_for(hidden, regularizer, MONOTONE)
        built = self.build(hidden, loss, regularizer, True, exact=True)
        self.compare(*built, sweeps=5, tolerance=tolerance(regularizer))

    @pytest.mark.parametrize("regularizer", REGULARIZERS)
    @pytest.mark.parametrize("hidden", ["relu", "sigmoid", "hardsigmoid"])
    def test_line_7(self, hidden, regularizer):
        """Whole sweeps with the paper's own test of what is done again, F' >= F."""
        loss = loss_for(hidden, regularizer, MONOTONE)
        self.compare(*self.build(hidden, loss, regularizer, True, sufficient_decrease=0.0), sweeps=12)

    @pytest.mark.parametrize("regularizer", ["l2", "l1"])
    @pytest.mark.parametrize("hidden", ["relu", "tanh"])
    def test_from_a_forward_pass(self, hidden, regularizer):
        """The paper's own start; Omega moves the hidden layers."""
        self.compare(*self.build(hidden, "cross_entropy", regularizer, True, shrink=1.0), sweeps=12)
