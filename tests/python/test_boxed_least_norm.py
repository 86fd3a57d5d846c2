"""The bounded least-squares problems behind the distances at kinks, against scipy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear

from torchbcd.boxed_least_norm import BoxedLeastNorm

pytestmark = pytest.mark.usefixtures("one_thread")


def one_group(size):
    return torch.zeros(size, dtype=torch.int64)


class TestSolver:
    @pytest.mark.parametrize("shape", [(40, 15), (15, 40), (60, 60)], ids=str)
    @pytest.mark.parametrize("condition", [1.0, 1e4])
    def test_against_scipy(self, shape, condition):
        """Rows whose interval is a point, wide, or half a line; columns of very different size, some twice."""
        rows, columns = shape
        generator = torch.Generator().manual_seed(rows + columns)
        a = torch.randn(shape, generator=generator).double()
        a = a * torch.logspace(0, -math.log10(condition), columns).double()
        a[:, 1] = a[:, 0]
        low = torch.randn(rows, generator=generator).double() * 3
        high = low + torch.where(torch.arange(rows) % 3 == 0, 0.7, 0.0)
        high[1], low[4] = math.inf, -math.inf
        width = torch.rand(columns, generator=generator).double() + 0.1
        none = torch.zeros(columns, dtype=torch.bool)
        found = BoxedLeastNorm((low, high), a.mv, a.t().mv, width, width / 2, none, one_group(columns)).solve()
        loose = (low != high).nonzero().flatten()
        slack = np.zeros((rows, len(loose)))
        slack[loose, range(len(loose))] = 1
        centre = torch.where(low.isinf(), high, low).numpy()
        lower = np.r_[np.zeros(columns), (low[loose].numpy() - centre[loose])]
        upper = np.r_[width.numpy(), (high[loose].numpy() - centre[loose])]
        full = np.c_[a.numpy(), slack]
        best = lsq_linear(full, -centre, (lower, upper), method="bvls", tol=1e-15, max_iter=2000)
        assert found.exact
        assert found.value == pytest.approx(math.sqrt(2 * best.cost), rel=1e-9)

    def test_zero(self):
        """Zero is in the set, but at no corner."""
        generator = torch.Generator().manual_seed(0)
        a = torch.randn(30, 50, generator=generator).double()
        inside = torch.rand(50, generator=generator).double()
        c = -a @ inside
        none = torch.zeros(50, dtype=torch.bool)
        found = BoxedLeastNorm(
            (c, c), a.mv, a.t().mv, torch.ones(50).double(), torch.zeros(50).double(), none, one_group(50)
        )
        assert found.solve().value < 1e-9 * c.norm()
        assert found.solve().exact

    def test_a_bound_where_there_are_too_many(self):
        """Random, 40 choices: no more than what any choice gives, no less than what the hull gives."""
        generator = torch.Generator().manual_seed(0)
        a = torch.randn(15, 40, generator=generator).double()
        c = torch.randn(15, generator=generator).double()
        width = torch.ones(40).double()
        ends = torch.ones(40, dtype=torch.bool)
        hull, chosen = (
            BoxedLeastNorm((c, c), a.mv, a.t().mv, width, width * 0, e, one_group(40)).solve()
            for e in (~ends, ends)
        )
        assert hull.exact
        assert hull.value <= chosen.value * (1 + 1e-9) + 1e-9
        picks = torch.randint(2, (40, 2000), generator=generator).double()
        assert chosen.value <= (c[:, None] + a @ picks).norm(dim=0).min()
        assert not chosen.exact
