"""Slow global searches in float64 NumPy for the blocks of the papers' algorithms; nothing of the library is used.

`argmin_entries` is for blocks of independent numbers, convex or not, `argmin_rows` for convex blocks of
independent rows with a 1-norm or bounds, `least_rows` for rows whose problem is not convex.
"""

from __future__ import annotations

from itertools import product

import numpy as np

POINTS = 1201  # of a grid over the interval that holds the minimiser
MINIMA = 4  # of the grid, that are refined
BISECTIONS = 64
SEARCH_STEPS = 130


def bisected(slope, low, high):
    """Where a slope changes its sign between `low` and `high`: the end that it points to where it does not."""
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        falls = slope(middle) <= 0
        low, high = np.where(falls, middle, low), np.where(falls, high, middle)
    return (low + high) / 2


def argmin_entries(value, slope, low, high):
    """Entry by entry the least of `value` between `low` and `high`: a grid, its best minima refined by bisection.

    `value` and `slope` take arrays of the shape of `low`, with further axes before it.
    """
    low, high = np.broadcast_arrays(low, high)
    grid = low + (high - low) * np.linspace(0, 1, POINTS).reshape(-1, *[1] * low.ndim)
    values = value(grid)
    padded = np.pad(values, [(1, 1), *[(0, 0)] * low.ndim], constant_values=np.inf)
    is_minimum = (values <= padded[:-2]) & (values <= padded[2:])
    order = np.where(is_minimum, values, np.inf).argsort(axis=0)[:MINIMA]
    ends = [np.take_along_axis(grid, np.clip(order + k, 0, POINTS - 1), 0) for k in (-1, 1)]
    candidates = bisected(slope, *ends)
    best = value(candidates).argmin(0)[None]
    found = np.take_along_axis(candidates, best, 0)[0]
    scale = 1e-12 * (1 + np.abs(values).min(0))
    assert (value(found) <= values.min(0) + scale).all(), "the refinement lost the grid's minimum"
    return found


def regularizer_terms(regularizer):
    """(l1, l2, low, high), of none too."""
    return (0.0, 0.0, -np.inf, np.inf) if regularizer is None else regularizer.numbers


def regularizer_value(regularizer, x):
    """l1 |x| + l2/2 x^2 where x is within the bounds, infinite elsewhere; entry by entry."""
    l1, l2, low, high = regularizer_terms(regularizer)
    return np.where((x >= low) & (x <= high), l1 * np.abs(x) + l2 / 2 * x**2, np.inf)


def regularizer_slope(regularizer, x):
    """Its derivative within the bounds."""
    l1, l2, _, _ = regularizer_terms(regularizer)
    return l1 * np.sign(x) + l2 * x


def _newton(smooth, linear, x, free):
    """Damped Newton steps on the free entries of every row of x, for a strongly convex smooth part."""

    def value(x):
        return smooth(x)[0] + (linear * x).sum(1)

    for _ in range(200):
        _, gradient, hessian = smooth(x)
        gradient = (gradient + linear)[:, free]
        direction = np.zeros_like(x)
        direction[:, free] = -np.linalg.solve(hessian[:, free][:, :, free], gradient[:, :, None])[:, :, 0]
        if np.abs(direction).max() <= 1e-15 * (1 + np.abs(x).max()):
            break
        old = value(x)
        step = np.ones((len(x), 1))
        for _ in range(40):
            worse = value(x + step * direction) > old + 1e-14 * np.abs(old)
            if not worse.any():
                break
            step[worse] /= 2
        x = x + step * direction
    return x


def argmin_rows(smooth, regularizer, start, covered=None):
    """The least of a strongly convex smooth part plus a regulariser, row by row, over all active sets.

    An entry may be zero, at a bound, or free with either sign: every such pattern is tried, by Newton's method on
    its free entries, and the least value at a feasible point counts. The minimiser is among them.

    Args:
        smooth: From rows x, shape (m, d), to their values (m,), gradients (m, d) and Hessians (m, d, d).
        regularizer: With l1, l2 and bounds, of the first `covered` entries.
        start: Rows to start from, whose values do not matter.
        covered: None for all.
    """
    m, d = start.shape
    covered = d if covered is None else covered
    l1, l2, low, high = regularizer_terms(regularizer)
    ridge = np.where(np.arange(d) < covered, l2, 0.0)

    def with_ridge(x):
        value, gradient, hessian = smooth(x)
        return value + (ridge * x**2).sum(1) / 2, gradient + ridge * x, hessian + np.diag(ridge)

    fixed_at = sorted({point for point in (low, high, *([0.0] if l1 > 0 else [])) if np.isfinite(point)})
    patterns = [(None, s) for s in ((-l1, l1) if l1 > 0 else (0.0,))] + [(point, 0.0) for point in fixed_at]
    best, least = np.full((m, d), np.nan), np.full(m, np.inf)
    for pattern in product(*[patterns if j < covered else [(None, 0.0)] for j in range(d)]):
        x = start.copy()
        for j, (point, _) in enumerate(pattern):
            if point is not None:
                x[:, j] = point
        free = np.array([point is None for point, _ in pattern])
        if free.any():
            x = _newton(with_ridge, np.array([s for _, s in pattern]), x, free)
        value = smooth(x)[0] + regularizer_value(regularizer, x[:, :covered]).sum(1)
        better = value < least
        best[better], least[better] = x[better], value[better]
    return best


def quadratic(hessian, linear):
    """The smooth part 1/2 x^T H x - b^T x of every row x, with its own b."""

    def smooth(x):
        image = x @ hessian
        value = (x * image).sum(1) / 2 - (x * linear).sum(1)
        return value, image - linear, np.broadcast_to(hessian, (len(x), *hessian.shape))

    return smooth


def least_rows(value, starts, radius, bounds):
    """The least value of every row that a search from many starts finds.

    The starts and the best ten of many scattered points go on. Each tries steps of its own length, in random
    directions and along axes, and to where some entries are zero or at a bound. What is lower is kept; the length
    shrinks where nothing is. No derivative is used, so that kinks do no harm.

    Args:
        value: From points, shape (..., m, d), to values (..., m); infinite outside the bounds.
        starts: Shape (s, m, d), within the bounds.
        radius: Shape (m,): no minimiser lies further from the first start.
        bounds: (low, high), shape (d,) each.
    """
    random = np.random.default_rng(0)
    _, m, d = starts.shape
    corners = np.stack([np.clip(np.zeros(d), *bounds), *(np.where(np.isfinite(b), b, 0.0) for b in bounds)])
    corners = np.clip(corners, *bounds)
    scattered = random.uniform(-1, 1, (1500, m, d)) * random.uniform(size=(1500, m, 1)) ** 2
    population = np.concatenate([starts, np.clip(starts[0] + radius[:, None] * scattered, *bounds)])
    values = value(population)
    given = np.arange(len(starts))[:, None] + np.zeros((1, m), int)
    order = np.concatenate([given, values.argsort(axis=0)[:10]])  # the starts go on, good or not
    x, values = np.take_along_axis(population, order[..., None], 0), np.take_along_axis(values, order, 0)
    length = np.broadcast_to(radius / 4, values.shape).copy()
    for _ in range(SEARCH_STEPS):
        step = random.normal(size=(36, *x.shape))
        step[12:24] *= np.arange(d) == random.integers(d, size=(12, *values.shape, 1))
        trial = x + length[..., None] * step
        snapped = random.uniform(size=(12, *x.shape)) < 1 / d
        trial[24:] = np.where(snapped, corners[random.integers(3)], trial[24:])
        trial = np.clip(trial, *bounds)
        trial_values = value(trial)
        best = trial_values.argmin(0)[None]
        best_values = np.take_along_axis(trial_values, best, 0)[0]
        better = best_values < values
        x = np.where(better[..., None], np.take_along_axis(trial, best[..., None], 0)[0], x)
        values = np.where(better, best_values, values)
        length *= np.where(better, 1.3, 0.75)
    return values.min(0)
