"""Where the papers err: each claim beside an example in which its hypotheses hold and it does not.

[Z] is Zeng et al., [W] Wang, Li, Wang, Zhao; numbers are theirs. docs/theory.md and docs/dlam.md say what holds.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from conftest import ACTIVATIONS, make_mlp
from objectives import REGULARIZERS, regularizer_value, row_losses

import torchbcd
from torchbcd import regularizers as reg

pytestmark = pytest.mark.usefixtures("one_thread")


def relu(u):
    return np.maximum(u, 0.0)


# [Z], Section 2 and Theorem 1.


def test_analytic_along_every_line_is_not_analytic():
    """[Z] after Definition 2: a function is analytic if it is so along every line.

    x^3/(x^2 + y^2), 0 at 0, is linear on the lines through 0 and a quotient without a pole on the others. It is
    not even differentiable at 0. (The proof of Theorem 1 does without: it composes functions.)
    """

    def h(x, y):
        return x**3 / (x**2 + y**2) if (x, y) != (0.0, 0.0) else 0.0

    for x, y in itertools.product((-2.0, -0.5, 0.0, 1.0), repeat=2):
        for t in (-4.0, 0.25, 8.0):
            assert h(t * x, t * y) == t * h(x, y)  # linear on lines through 0
    t = 2.0**-30
    assert (h(t, 0.0) / t, h(0.0, t) / t) == (1, 0)  # were h differentiable, the slope along (1, 1) would be 1
    assert h(t, t) / t == 0.5


def test_a3_is_not_the_graph_of_the_hinge_loss():
    """[Z], proof of Theorem 1, (a3): the hinge's graph is the closure of a set D, with 1 - u > 0 in it.

    1 - u^T y > 0 is meant. As printed D is right for y = 1, and wrong for y = -1.
    """

    def in_closure(u, z, y, printed):
        side = 1 - u if printed else 1 - u * y
        return (1 - u * y - z == 0 and side >= 0) or (z == 0 and u * y - 1 >= 0)

    for u in (-2.0, -1.0, 0.0, 1.0, 2.0):
        assert in_closure(u, max(0.0, 1 - u), 1.0, printed=True)
        for y in (1.0, -1.0):
            assert in_closure(u, max(0.0, 1 - u * y), y, printed=False)
    assert not in_closure(2.0, 3.0, -1.0, printed=True)  # max(0, 1 + 2) = 3, a point of the graph, is missing
    assert in_closure(-2.0, -1.0, -1.0, printed=True)  # not on the graph: the hinge is nowhere negative


# [Z], Lemmas 6 and 7: the chain of inequalities.


def test_lemma_6_forgets_the_data():
    """[Z], Lemma 6: dist(0, dL(P^k)) <= b sqrt(3N) ||P^k - P^{k-1}||, b of (23) made of a bound B of all P^k.

    W_1 is multiplied by V_0 = X, which is no part of P. One layer, one sample x = 256, gamma = alpha = 1, from
    V = 1, U = 1/2, W = 0 and y = 3/2: the V and U blocks stay where they are, W moves by 1/2 in W x, that is by
    1/512, and leaves a subgradient of 1/2. With B >= ||X|| the lemma holds.
    """
    x, y = 256.0, 1.5
    v, u, w = 1.0, 0.5, 0.0
    points, distances = [(w, v, u)], []

    def b(bound):  # (23)
        return max(1 + bound, bound + 2 * bound**2, 2 * bound + bound**2)

    for _ in range(200):
        v = (y + u + v) / 3
        u = (v + w * x) / 2
        w = (u * x + w) / (x * x + 1)
        points.append((w, v, u))
        distances.append(math.hypot((w * x - u) * x, (v - y) + (v - u), (u - v) + (u - w * x)))
    assert points[1][1:] == (1.0, 0.5)
    steps = [math.dist(*pair) for pair in itertools.pairwise(points)]
    bound = max(math.hypot(*point) for point in points)
    assert distances[0] > 2 * b(bound) * math.sqrt(3) * steps[0]
    for distance, step in zip(distances, steps, strict=True):
        assert distance <= b(max(bound, x)) * math.sqrt(3) * step + 1e-11


def test_a_step_of_lemma_6_fails():
    """[Z], proof of Lemma 6: the change of V_{i-1} costs ||G_{W_i}|| at most (gamma B^2 + gamma B) ||dV||, i < N.

    W V V^T - U V^T changes by w (v + v') - u times dV, and (w, v, u) and v' may be as long as B. (24) stands: the
    factors of dV, those of the U block with it, add up to no more than b.
    """
    bound, w, v, u, v_old = 4.0, 3.5, 1.9, 0.0, 4.0
    assert math.hypot(w, v, u) <= bound >= v_old
    change = (w * v - u) * v - (w * v_old - u) * v_old
    assert abs(change) > (bound**2 + bound) * abs(v - v_old)
    rng = np.random.default_rng(0)
    for bound in (0.25, 1.0, 4.0):
        new, old = rng.standard_normal((2, 3, 100_000))
        w, v, u = bound * np.abs(new) / np.linalg.norm(new, axis=0)
        w_old, v_old, _ = bound * np.abs(old) / np.linalg.norm(old, axis=0)
        factor = (w * (v + v_old) + u + w_old).max()
        limit = max(bound + 2 * bound**2, 2 * bound + bound**2)
        assert 0.6 * limit < factor <= limit


def test_lemma_7_takes_the_slope_at_the_wrong_point():
    """[Z], proof of Lemma 7: s - t <= (phi(s) - phi(t)) / phi'(t) for s > t, phi being concave.

    Concavity gives that with phi'(s). With phi'(t) it is the other way round: phi = sqrt, s = 4, t = 1.
    """
    s, t, difference = 4.0, 1.0, math.sqrt(4) - math.sqrt(1)
    assert s - t <= difference / (0.5 / math.sqrt(s))
    assert s - t > difference / (0.5 / math.sqrt(t))


@pytest.mark.parametrize("factor", [2.0**-4, 2.0**-10])
def test_lemma_7_does_not_follow(factor):
    """[Z], (27): the whole path is at most b/a phi(L(P^0) - L(P*)), from (11), (24) and the KL inequality (8).

    L = x^2/2, P* = 0, x_k = factor x_{k-1} (the proximal point method with alpha = factor/(1 - factor)) and
    phi = sqrt(2 s) satisfy the three with equality. The path has length 1, the bound is 2 factor/(1 + factor).
    What follows is a bound of 2 ||P^1 - P^0|| + b/a phi(L(P^1) - L(P*)).
    """
    x = [factor**k for k in range(6)]
    a, b = (1 + factor) / (2 * (1 - factor)), factor / (1 - factor)
    for old, new in itertools.pairwise(x):
        assert old**2 / 2 - new**2 / 2 >= a * (old - new) ** 2 * (1 - 1e-14)  # (11)
        assert new <= b * (old - new) * (1 + 1e-14)  # (24)
        assert new / math.sqrt(2 * new**2 / 2) >= 1  # (8): phi'(s) = 1/sqrt(2 s)
    path = x[0] - x[-1]
    assert path > 4 * (b / a) * x[0]
    assert path <= 2 * (x[0] - x[1]) + (b / a) * x[1]


# [Z], Theorem 3.


def test_theorem_3_converges_to_a_minimiser_not_to_the_one():
    """[Z], Theorem 3, last clause: from near enough to a global minimum P* the sequence converges to P*.

    Minimisers need not be isolated, and from another one, however near, nothing moves. 2-1-1 ReLU net, y = 1,
    x = (1, 1), weights in [0, 1], so that r_i is coercive: W_1 = (1/2 + d, 1/2 - d), W_2 = 1 has L = 0.
    """
    for exponent in (2, 10, 20):
        d = 2.0**-exponent
        model = make_mlp([2, 1, 1], bias=False)
        with torch.no_grad():
            model[0].weight.copy_(torch.tensor([[0.5 + d, 0.5 - d]]))
            model[2].weight.fill_(1.0)
        optimizer = torchbcd.BCD(model, gamma=1.0, alpha=1.0, weight_regularizer=reg.Box(0, 1))
        optimizer.bind(torch.ones(1, 2).double(), torch.ones(1, 1).double())
        assert optimizer.objective() == 0  # a global minimum, d sqrt(2) away from that with d = 0
        for _ in range(20):
            optimizer.step()
        assert model[0].weight[0].tolist() == [0.5 + d, 0.5 - d]
        assert optimizer.objective() == 0


# [Z], Algorithm 1 on a 1-1-1-1 net, ReLU, ReLU, identity, two samples, squared loss, gamma = alpha = 1. W_1, W_3
# lie in [0, 1], V_2 in [-1, 1]; layer 2 has a bias, part of W_2 = (w, c) as in the paper, and r_2 = |W_2|^2/8.
X, Y = np.array([1.0, 3.0]), np.array([-3.0, 3.0])
BOUNDS = {"w1": (0, 1), "w3": (0, 1), "v2": (-1, 1)}


def product(p):
    return p["w2"][0] * p["v1"] + p["w2"][1]


def lifted_of_two(p):
    gaps = p["v1"] - relu(p["w1"] * X), p["v2"] - relu(product(p)), p["v3"] - p["w3"] * p["v2"], p["v3"] - Y
    return np.sum(np.square(gaps)) / 2 + p["w2"] @ p["w2"] / 8


def weights_of_layer_2(p):
    """The global minimiser: the lowest stationary point of the pieces and edges that it lies on."""
    rows, best = np.c_[p["v1"], np.ones(2)], math.inf
    for signs in itertools.product((-1, 0, 1), repeat=2):
        active, edges = rows[np.equal(signs, 1)], rows[np.equal(signs, 0)]
        hessian, zeros = 1.25 * np.eye(2) + active.T @ active, np.zeros((len(edges),) * 2)
        right = np.r_[p["w2"] + active.T @ p["v2"][np.equal(signs, 1)], np.zeros(len(edges))]
        w2 = np.linalg.solve(np.block([[hessian, edges.T], [edges, zeros]]), right)[:2]
        u = np.where(np.equal(signs, 0), 0.0, rows @ w2)
        value = 0.625 * w2 @ w2 - w2 @ p["w2"] + np.sum((p["v2"] - relu(u)) ** 2) / 2
        if np.all(u * signs >= 0) and value < best:
            best, found = value, w2
    return found


def states_of_layer_1(p):
    (w, c), v2, pull = p["w2"], p["v2"], relu(p["w1"] * X) + p["v1"]
    candidates = np.stack([pull / 2, (pull + (v2 - c) * w) / (2 + w * w), np.full(2, -c / w)])
    values = candidates**2 - pull * candidates + (v2 - relu(w * candidates + c)) ** 2 / 2
    return candidates[values.argmin(0), [0, 1]]


BLOCKS = {
    "v3": lambda p: (Y + p["w3"] * p["v2"] + p["v3"]) / 3,
    "w3": lambda p: np.clip((p["v3"] @ p["v2"] + p["w3"]) / (p["v2"] @ p["v2"] + 1), 0, 1),
    "v2": lambda p: np.clip((relu(product(p)) + p["w3"] * p["v3"] + p["v2"]) / (2 + p["w3"] ** 2), -1, 1),
    "w2": weights_of_layer_2,
    "v1": states_of_layer_1,
    "w1": lambda p: np.clip((p["v1"] @ X + p["w1"]) / (X @ X + 1), 0, 1),
}


def gradient_at(p, xi):
    """In W_2 and V_1, with xi for the first sample's (sigma(u) - V_2) sigma'(u)."""
    slope = np.array([xi, relu(product(p))[1] - p["v2"][1]])
    of_w2 = p["w2"] / 4 + np.r_[slope @ p["v1"], slope.sum()]
    return np.r_[of_w2, p["v1"] - relu(p["w1"] * X) + slope * p["w2"][0]]


def test_equation_32_is_false_for_a_relu():
    """[Z], (32): dist(0, dL(Q^k)) <= b ||Q^k - Q^{k-1}|| for Algorithm 1; and Theorem 3 for it.

    All hypotheses hold, (b) among them, and every block is minimised exactly. W_2 ends on the kink of the first
    sample (u = w v + c = 0, V_2 = -1), held there by a subgradient; then V_1 moves on, u is below zero, and the
    subgradient is gone. The steps go to zero, the distance does not. Nor is the limit critical: W_2 needs
    xi = 0.2 of the kink, V_1 needs xi = 0, and the subdifferential has one xi for both. L falls, to first order,
    where v goes down and c up with u = 0.
    """
    p = {"w1": 1.0, "w2": np.array([0.5, -1.0]), "w3": 1.0}
    p |= {"v1": np.array([2.0, 3.0]), "v2": np.array([-1.0, 1.0]), "v3": np.array([-2.0, 2.0])}
    rng, ratios, objective = np.random.default_rng(0), [], lifted_of_two(p)
    for k in range(40):
        old = p
        for name, block in BLOCKS.items():
            before, p = p, {**p, name: block(p)}
            if name == "w2":
                assert product(p)[0] == pytest.approx(0, abs=1e-15)

            def value(entries, before=before, name=name):
                return lifted_of_two({**before, name: entries}) + np.sum((entries - before[name]) ** 2) / 2

            for scale in (0.01, 0.3, 3.0) * 30:  # none of many points is lower
                other = p[name] + scale * rng.standard_normal(np.shape(p[name]))
                assert value(np.clip(other, *BOUNDS.get(name, (None, None)))) >= value(p[name]) - 1e-13
        step = math.sqrt(sum(np.sum((p[name] - old[name]) ** 2) for name in p))
        assert lifted_of_two(p) <= objective - step**2 / 2 + 1e-14  # (31), a = alpha/2
        objective = lifted_of_two(p)
        assert (p["w1"], p["w3"], *p["v2"], *p["v3"]) == (1, 1, -1, 1, -2, 2)
        if k < 30:
            assert product(p)[0] < 0  # where L is smooth
            ratios.append(np.linalg.norm(gradient_at(p, 0.0)) / step)
    assert step < 1e-10
    assert ratios[-1] > 1e7
    assert all(later > 1.5 * earlier for earlier, later in itertools.pairwise(ratios[4:]))
    # The limit: u = 0, where xi may be anything in [0, 1], the kink being convex.
    assert product(p)[0] == pytest.approx(0, abs=1e-12)
    assert min(np.linalg.norm(gradient_at(p, xi)) for xi in np.linspace(0, 1, 1001)) > 0.08
    for length in (1e-2, 1e-3, 1e-4):
        moved = {**p, "v1": p["v1"] - [length, 0], "w2": p["w2"] + [0, length * p["w2"][0]]}
        assert lifted_of_two(moved) < objective - 0.08 * length


# [Z], Theorem 3: its conditions (b) and (c), and which nets of the library satisfy them.

BOUNDED_BELOW = ("relu", "sigmoid", "tanh", "hardtanh", "hardsigmoid", "silu")  # as u goes to -inf
COERCIVE = ("identity", "leaky_relu", "polynomial")


def lifted(activation, regularizers, w, b, u, v, y):
    """L of a 1-1-1 net with gamma = rho = 1 and squared loss; one row."""
    total = 0.5 * (v[2] - y) ** 2
    for i in range(2):
        out = ACTIVATIONS[activation]()(torch.tensor([u[i]]).double()).item() if i == 0 else u[i]
        total += 0.5 * (v[i + 1] - out) ** 2 + 0.5 * (u[i] - v[i] * w[i] - b[i]) ** 2
        total += regularizer_value(regularizers[0], torch.tensor([w[i]]))
        total += regularizer_value(regularizers[1], torch.tensor([v[i + 1]]))
    return total


@pytest.mark.parametrize("regularizer", REGULARIZERS)
@pytest.mark.parametrize("activation", BOUNDED_BELOW)
def test_biases_escape_the_regularizers(activation, regularizer):
    """[Z], footnote 1, Theorem 3 (b), (c): biases are part of W_i, so r_i has to bound them; none here does.

    Where sigma is bounded on a half line, b_1 = -t, U_1 = W_1 x + b_1 and all else fixed keep L bounded: with
    biases neither (b) nor (c) holds, whatever the regularisers of weights and states.
    """
    values = []
    for t in (1e2, 1e4, 1e6):
        w, b, v = (0.25, 0.25), (-t, 0.0), (1.0, 0.25, 0.25)
        values.append(lifted(activation, REGULARIZERS[regularizer], w, b, (0.25 - t, 0.25), v, y=1.0))
    assert max(values) < 3
    assert values[2] == pytest.approx(values[0], abs=1e-9)


@pytest.mark.parametrize("activation", COERCIVE)
def test_coercive_activations_need_regularised_states(activation):
    """The same for an activation without bounds: a unit that nobody reads escapes, unless s_i holds it."""
    for name in ("none", "l2", "l1", "elastic net"):
        terms, values = (reg.L2(0.1), REGULARIZERS[name][1]), []
        for t in (1e2, 1e4):
            out = ACTIVATIONS[activation]()(torch.tensor([0.25 - t]).double()).item()
            w, b, v = (0.25, 0.0), (-t, 0.0), (1.0, out, 0.25)
            values.append(lifted(activation, terms, w, b, (0.25 - t, 0.25), v, y=1.0))
        assert values[0] == values[1] < 3 if name == "none" else values[1] > 50 * values[0]


@pytest.mark.parametrize("loss", ["logistic", "exponential", "cross_entropy"])
def test_without_coercivity_the_sweeps_go_to_infinity(loss):
    """[Z], Theorem 3 without (a), (b) and (c): L falls, the steps go to zero, W goes to infinity.

    Two samples that a weight separates: L has no critical point, so no subsequence converges. With L2 on the
    weights (b) holds, and so does the theorem.
    """
    for terms in (None, reg.L2(0.05)):
        model = make_mlp([1, 2], bias=False)
        optimizer = torchbcd.BCD(model, loss, gamma=1.0, alpha=0.1, weight_regularizer=terms)
        optimizer.bind(torch.tensor([[1.0], [-1.0]]).double(), torch.tensor([0, 1]))
        norms, steps = [], []
        for sweeps in (100, 900, 9000):
            for _ in range(sweeps):
                before = model[0].weight.clone()
                optimizer.step()
            norms.append(model[0].weight.norm().item())
            steps.append((model[0].weight - before).norm().item())
        assert steps[2] <= steps[1] <= steps[0] < 0.1
        if terms is None:
            assert norms[1] > norms[0] + 1
            assert norms[2] > norms[1] + 1  # as the logarithm of the sweeps
        else:
            assert norms[2] == pytest.approx(norms[1], rel=1e-6)
            assert optimizer.stationarity().residual < 1e-6


# [W].


def test_assumption_2_fails_for_cross_entropy_and_without_a_regularizer():
    """[W], after Assumption 2: common losses such as least squares and cross-entropy make F coercive.

    Cross-entropy does not change along (1, ..., 1). Nor do least squares help a weight that meets a_l = 0, which
    is feasible at any eps: without an Omega_l that is coercive F is not.
    """
    target = torch.tensor([1])
    values = [row_losses("cross_entropy", t * torch.ones(1, 4).double(), target).item() for t in (0.0, 1e3, 1e6)]
    assert values == [pytest.approx(math.log(4))] * 3

    def objective(w1, z1, a1, w2, z2, eps=0.5):
        feasible = abs(a1 - relu(z1)) <= eps
        return (0.5 * (z2 - 1) ** 2 + 0.5 * (z1 - w1) ** 2 + 0.5 * (z2 - w2 * a1) ** 2) if feasible else math.inf

    assert {objective(1.0, 0.0, 0.0, w2, 0.0) for w2 in (0.0, 1e3, 1e9)} == {1.0}


def test_theorem_2_of_dlam_can_have_a_negative_c():
    """[W], Theorem 2: c_k is o(1/k) in Algorithm 1. The proof needs c_k >= 0, and takes it to be clear.

    Theorem 1's condition on omega is not assumed, and without it a term is negative where theta grows; the
    minimum stays there. One layer, two samples a = diag(1, 8), least squares, rho = 1, every theta the smallest
    that satisfies condition (2).
    """
    a, y = np.diag([1.0, 8.0]), np.array([4.0, 1.0])

    def phi(w, z):
        return np.sum((z - a @ w) ** 2) / 2

    w, z = [np.zeros(2)] * 2, [np.ones(2)]  # W^{-1} = W^0
    theta, omega, s = [math.nan], [], 0.0
    for _ in range(40):
        s, s_old = (1 + math.sqrt(1 + 4 * s * s)) / 2, s
        omega.append((s_old - 1) / s)
        extrapolated = w[-1] + omega[-1] * (w[-1] - w[-2])
        gradient = a.T @ (a @ extrapolated - z[-1])
        theta.append(np.sum((a @ gradient) ** 2) / (gradient @ gradient))
        w.append(extrapolated - gradient / theta[-1])
        model = phi(extrapolated, z[-1]) - gradient @ gradient / (2 * theta[-1])
        assert model == pytest.approx(phi(w[-1], z[-1]), rel=1e-9)  # (2), with equality
        z.append((y + a @ w[-1]) / 2)  # (5)
    w, c = w[1:], []
    for i in range(1, 40):
        term = (theta[i] - theta[i + 1] * omega[i] ** 2) / 2 * np.sum((w[i] - w[i - 1]) ** 2)
        term += (1 - omega[i] ** 2) / 2 * np.sum((z[i] - z[i - 1]) ** 2)
        c.append(min([term, *c[-1:]]))
    assert omega[2] ** 2 > theta[2] / theta[3]  # Theorem 1's condition does not hold
    assert c[0] > 1
    assert all(value <= c[1] < -6 for value in c[1:])  # so k c_k goes to -infinity


@pytest.mark.parametrize("mu", [0.5, 2.0, 8.0, 32.0])
def test_lemma_3_of_dlam_fails_for_mu_above_2(mu):
    """[W], Lemma 3: a function that is strongly convex with mu has the KL property with psi = 2/mu sqrt(s).

    mu/2 x^2 at 0 gives psi'(f) |f'| = sqrt(2/mu), below 1 for mu > 2. sqrt(2/mu) sqrt(s) is right for all mu.
    """
    for x in (-1.0, 2.0**-20):
        f, slope = mu / 2 * x**2, mu * abs(x)
        claimed = 1 / (mu * math.sqrt(f)) * slope
        assert claimed == pytest.approx(math.sqrt(2 / mu))
        assert (claimed >= 1 - 1e-12) == (mu <= 2)
        assert math.sqrt(2 / mu) / (2 * math.sqrt(f)) * slope == pytest.approx(1)


def minimiser_of_exponential(q):
    """Of e^-z + 1/2 (z - q)^2: Newton's method from the left, where it is monotone."""
    z = q
    for _ in range(60):
        z += (math.exp(-z) - z + q) / (math.exp(-z) + 1)
    return z


@pytest.mark.parametrize("eps", [0.5, 1.0, 2.0, 4.0, 8.0])
def test_theorem_4_of_dlam_is_circular(eps):
    """[W], Theorem 4: for any rho there is an eps with a linear rate. Its proof: eps = max(D_1, D_2).

    D_1 and D_2 bound |h(q) - a| and |h(z) - a + grad/tau| over the run, which eps makes; with that eps no box is
    to be met, so that (26) and (27) hold. Here every eps makes a run that meets its box: 1-1-1 ReLU net, x = 1,
    R = e^-z, Omega = 0.005 w^2, rho = 1, all variables from 1. F is coercive on the boxes for every eps. Without
    them its only stationary point is W = z_1 = a = 0, where F is 0.728; the run starts below that, and were no
    box met it would stay bounded and tend to stationary points. (theta and tau are the curvatures, so that (2)
    is an equality, and extrapolation, in one dimension, changes nothing.)
    """
    damping = 0.01
    w1 = z1 = a1 = w2 = z2 = 1.0

    def objective():
        return math.exp(-z2) + damping / 2 * (w1**2 + w2**2) + ((z1 - w1) ** 2 + (z2 - w2 * a1) ** 2) / 2

    z, largest, previous = minimiser_of_exponential(0.0), 0.0, objective()
    assert previous < math.exp(-z) + z * z / 2 == pytest.approx(0.728, abs=1e-3)
    for _ in range(4000):
        w1 = z1 / (1 + damping)
        free_z = w1
        largest = max(largest, abs(relu(free_z) - a1))  # what D_1 bounds
        z1 = min(max(a1 - eps if a1 > eps else -math.inf, free_z), a1 + eps)
        free_a = z2 / w2
        largest = max(largest, abs(relu(z1) - free_a))  # what D_2 bounds
        a1 = min(max(relu(z1) - eps, free_a), relu(z1) + eps)
        w2 = a1 * z2 / (a1 * a1 + damping)
        z2 = minimiser_of_exponential(w2 * a1)
        assert objective() <= previous + 1e-15  # Lemma 1
        previous = objective()
        if (z1, a1) != (free_z, free_a):
            break
    assert (z1, a1) != (free_z, free_a)
    assert largest > eps


def test_solving_first_and_projecting_then_is_no_block_minimiser():
    """What the code of Lau et al. (2018) does with a V block of the lifted ReLU; torchbcd.ZhangBrand solves it.

    The block is 1/2 <v, H v> - <q, v> on v >= 0, with H = gamma_2 W^T W + (gamma_1 + alpha) I: here q = H (3, -2)
    from W x = V_1 = (1.2, 0).
    """
    hessian, free = torch.tensor([[1.0, 0.9], [0.9, 1.0]]).double(), torch.tensor([3.0, -2.0]).double()
    linear, before = hessian @ free, torch.tensor([1.2, 0.0]).double()

    def objective(v):
        return float(v @ hessian @ v / 2 - linear @ v)

    assert objective(before) == pytest.approx(-0.72)
    assert objective(free.clamp_min(0)) == pytest.approx(0.9)
    weight = torch.linalg.cholesky(hessian - 0.1 * torch.eye(2).double()).t()
    target = torch.linalg.solve(weight.t(), linear - 0.1 * before)
    model = make_mlp([1, 2, 2], bias=False)
    with torch.no_grad():
        model[0].weight.copy_(before[:, None])
        model[2].weight.copy_(weight)
    optimizer = torchbcd.ZhangBrand(model, gamma=[0.05, 1.0], alpha=[0.05, 1e9], output_nonnegative=False)
    optimizer.bind(torch.ones(1, 1).double(), target[None], v=[before[None], target[None]])
    for parameter in model[2].parameters():
        parameter.requires_grad_(False)
    optimizer.step()
    v = optimizer.variables().V[1][0]
    assert objective(v) <= -0.72 + 1e-12
    torch.testing.assert_close(v, before)
