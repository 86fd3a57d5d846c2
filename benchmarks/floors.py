"""The floor of a sweep or a step: the operations that it cannot do without, at the rate of a matrix product.

n rows; a layer of d inputs and d' outputs has d + 1 unknowns an output, the bias's among them. A product of a
matrix of n rows with the layer's weight, or with a gradient of its shape, is 2 n d d' operations, the Gram
matrix of n rows of d numbers n d^2 (it is symmetric), a Cholesky factor d^3 / 3, two triangular solves for d'
right-hand sides 2 d^2 d'. Everything elementwise counts nothing, and of two ways the cheaper one counts,
whoever takes it: an implementation may be above its floor because it takes the other one, for the sake of
accuracy, too.

What persists between sweeps (data, their Gram matrix and its factor, products) may be kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch

PRODUCT = (4096, 1024, 1024)  # of the matrices whose product measures the rate


def ridge_operations(n: float, d: float, outputs: float) -> float:
    """Gram matrix, factor and solves of a ridge regression, on the side of the unknowns or of the rows."""
    primal = n * d**2 + d**3 / 3 + 2 * d**2 * outputs
    dual = n**2 * d + n**3 / 3 + 2 * n**2 * outputs
    return min(primal, dual)


def layers_of(widths: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Number, inputs and outputs."""
    for layer, (inputs, outputs) in enumerate(pairwise(widths)):
        yield layer, inputs, outputs


def bcd(n: int, widths: Sequence[int], bound: bool = True) -> float:
    """A sweep of Zeng et al.'s Algorithm 2; of Algorithm 1, too, where all activations are the identity.

    W block: the residual R = U - V W^T, whose product the U block of the layer needs, too, R^T V, and the solves,
    4 n (d + 1) d' + ridge. Bound data have the first layer's Gram matrix and factor once and for all. Where a
    mini-batch starts from a forward pass, that pass is the product of R.

    V block between a layer and the next one: (gamma I + rho W^T W) V = gamma S + rho W^T U has m unknowns a
    row, m the smaller of W's two sides by the matrix inversion lemma, M the larger one: m^2 M + m^3 / 3 + 2 n
    m^2 for Gram matrix, factor and solves. Two products remain, U W before the solves and V W^T after them, and
    the latter is the layer's R again. So a hidden weight is in three products a sweep, not in four: 2 n d d'
    here.

    Algorithm 1 has V_l instead of U_l, and as many least squares of the same sizes where nothing bends: R is
    V_l - V_{l-1} W_l^T, its centre of V_l is made of products that are there. Other activations are inside the
    squares, which are then solved by iterations whose number depends on the data: no floor.
    """
    total = 0.0
    for layer, inputs, outputs in layers_of(widths):
        total += 4 * n * (inputs + 1) * outputs
        if layer > 0 or not bound:
            total += ridge_operations(n, inputs + 1, outputs)
        if layer > 0:
            small, large = sorted((inputs, outputs))
            total += 2 * n * inputs * outputs + small**2 * large + 2 * n * small**2 + small**3 / 3
    return total


def dlam(n: int, widths: Sequence[int], momentum: bool = True) -> float:
    """A sweep of Wang et al.'s DLAM or mDLAM with the linearised W step, each block accepted at first.

    W block, at W + omega (W - W_prev): the gradient (q - z)^T a and the new q = a W'^T are two products. To
    extrapolate the gradient by omega (W - W_prev) a^T a takes a third one, a (W - W_prev)^T, or the Gram matrix
    of a and two products with it (n d^2 + 2 d^2 d'); none in the first layer, whose inputs stay, so that the
    product is the difference of two q.

    a block, at a + omega (a - a_prev): the gradient (q - z) W and the new q = a' W^T, and a third product, (a -
    a_prev) W^T, or W^T W and one with it (d^2 d' + 2 n d^2). `joint` has the same products, z's block none.

    theta and tau cost nothing: the conditions on them also hold at bounds of eigenvalues.
    """
    total = 0.0
    for layer, d, outputs in layers_of(widths):
        product = 2.0 * n * d * outputs
        total += 2 * product
        if layer > 0:
            total += 2 * product
            if momentum:
                total += min(product, n * d**2 + 2 * d**2 * outputs)
                total += min(product, d**2 * outputs + 2 * n * d**2)
    return total


def dladmm(n: int, widths: Sequence[int]) -> float:
    """A sweep of dlADMM (Wang et al., 2019), backward and forward: every block twice.

    A W block is a gradient step, (q - t)^T a and the new q: two products; an a block likewise, (q - t) W and what
    the step moves q by. So a hidden weight is in eight products. The two steps of the first W follow one
    another: with the Gram matrix G of the data, which stays, the second gradient and both step lengths come from
    products of d x d with the steps, D G, and q is moved once, by their sum: 4 n d d' + 4 d^2 d', or 8 n d d'.
    """
    total = 0.0
    for layer, d, outputs in layers_of(widths):
        product = 2.0 * n * d * outputs
        total += 8 * product if layer > 0 else min(4 * product, 2 * product + 4 * d**2 * outputs)
    return total


def relaxed(n: int, widths: Sequence[int], bound: bool = False) -> float:
    """A certified step of RelaxedBCD with state_steps=1 and no row_blocks.

    The forward pass, a product a layer. W block: the residual R from that pass, R^T V or, on the side of the
    rows, Z^T V, and the solves; on the side of the unknowns, one more product for the residual that is left,
    which the joint block begins with (the first layer has none behind it) and which the side of the rows has
    for nothing. The joint block of U and V: the gradient R W, and the product of the direction with W^T, for
    the length of the step. The check needs the product of the step that was taken; where V moves along a line
    it is the same.

    `bound`: the Gram matrix and the factor of the data may be kept.
    """
    total = 0.0
    for layer, inputs, outputs in layers_of(widths):
        d, product = inputs + 1, 2.0 * n * inputs * outputs
        total += 2 * product
        primal = n * d**2 + d**3 / 3 + 2 * d**2 * outputs
        dual = n**2 * d + n**3 / 3 + 2 * n**2 * outputs
        if layer > 0:
            total += min(primal + product, dual) + 2 * product
        else:
            total += 2.0 * min(n, d) ** 2 * outputs if bound else min(primal, dual)
    return total


def backpropagation(n: int, widths: Sequence[int]) -> float:
    """Forward and backward pass: three products a layer, two in the first one, whose inputs need no gradient."""
    return sum((6.0 if layer > 0 else 4.0) * n * d * outputs for layer, d, outputs in layers_of(widths))


def seconds_of(call: Callable[[], object]) -> float:
    """Seconds of a call: on one thread those of the process, with more by the clock."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    call()
    return clock() - start


def product() -> Callable[[], object]:
    """A large matrix product, to be timed beside what is measured."""
    rows, inner, columns = PRODUCT
    left, right, out = torch.randn(rows, inner), torch.randn(inner, columns), torch.empty(rows, columns)
    return lambda: torch.mm(left, right, out=out)


def rate(seconds: float) -> float:
    """Operations a second of that product."""
    rows, inner, columns = PRODUCT
    return 2 * rows * inner * columns / seconds


def share(floor: float, seconds: float) -> str:
    """Of a time, what the floor is of it, as text."""
    return f"{100 * floor / seconds:.0f} %"
