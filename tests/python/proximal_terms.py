"""Regularisers of one's own for tests: some that the library knows, too, others, and some that are none."""

from __future__ import annotations

import torch

from torchbcd import regularizers as reg

INF = float("inf")


def l1_prox(w, step):
    return w - w.clamp(-0.4 * step, 0.4 * step)


def l1_value(w):
    return 0.4 * w.abs().sum()


@torch.jit.script
def nonnegative_prox(w: torch.Tensor, step: float) -> torch.Tensor:
    return w.clamp_min(0)


@torch.jit.script
def nonnegative_value(w: torch.Tensor) -> float:
    return 0.0 if bool((w >= 0).all()) else float("inf")


def l0_prox(w, step):
    return w * (w.square() > 2 * 0.5 * step)


def mcp_prox(w, step, weight=0.5, gamma=3.0):
    """Zhang's minimax concave penalty, whose prox for step < gamma is firm thresholding."""
    firm = (w - w.clamp(-step * weight, step * weight)) / (1 - step / gamma)
    return torch.where(w.abs() <= gamma * weight, firm, w)


def mcp_value(w, weight=0.5, gamma=3.0):
    inner = weight * w.abs() - w.square() / (2 * gamma)
    return torch.where(w.abs() <= gamma * weight, inner, gamma * weight**2 / 2).sum()


def nuclear_prox(w, step):
    u, s, v = torch.linalg.svd(w, full_matrices=False)
    return u * (s - 2 * step).clamp_min(0) @ v


def simplex_prox(w, step):
    u = w.sort(dim=1, descending=True).values
    shares = (u.cumsum(1) - 1) / torch.arange(1, w.shape[1] + 1, dtype=w.dtype)
    return (w - shares.gather(1, (u > shares).sum(1, keepdim=True) - 1)).clamp_min(0)


def simplex_value(w):
    return 0.0 if (w >= 0).all() and ((w.sum(1) - 1).abs() < 1e-5).all() else INF


L1 = reg.Proximal("own l1", l1_prox, l1_value)
SIMPLEX = reg.Proximal("simplex", simplex_prox, simplex_value)
KNOWN = {
    "l1": (L1, reg.L1(0.4)),
    "elastic net": (reg.L2(0.7) + L1, reg.ElasticNet(0.4, 0.7)),
    "nonnegative": (reg.Proximal("scripted", nonnegative_prox, nonnegative_value), reg.Nonnegative()),
}
OTHERS = {
    "count": reg.Proximal("count", l0_prox, lambda w: 0.5 * (w != 0).sum()),
    "mcp": reg.Proximal("mcp", mcp_prox, mcp_value) + reg.L2(0.1),
    "nuclear": reg.Proximal("nuclear", nuclear_prox, lambda w: 2 * torch.linalg.svdvals(w).sum()),
    "simplex": SIMPLEX,
}


def raising(error):
    def function(*_):
        raise error

    return function


class OwnError(Exception):
    """What nobody else raises."""


def of(prox=l1_prox, value=l1_value):
    return reg.Proximal("mine", prox, value)


LIES = {
    "worse": (of(lambda w, step: 2 * w), ValueError, r"be no worse than its argument W in r.Z."),
    "shape": (
        of(lambda w, step: w[1:]),
        ValueError,
        "return a tensor like its argument, Double of shape .*got Do",
    ),
    "dtype": (of(lambda w, step: w.float()), ValueError, "like its argument.* .got Float"),
    "no tensor": (of(lambda w, step: w.tolist()), ValueError, "like its argument.* .got none"),
    "nan": (of(lambda w, step: w * float("nan")), ValueError, "be finite .got NaN or infinity"),
    "outside": (
        of(value=lambda w: INF),
        ValueError,
        "be where the regulariser is finite .its value there is inf",
    ),
    "nan value": (of(value=lambda w: float("nan")), ValueError, "must be a number or infinity .got nan"),
    "no number": (of(value=lambda w: "high"), ValueError, "could not convert string to float"),
    "prox raises": (of(raising(OwnError("here"))), OwnError, "here"),
    "value raises": (of(value=raising(OwnError("there"))), OwnError, "there"),
    "interrupt": (of(raising(KeyboardInterrupt("now"))), KeyboardInterrupt, "now"),
}
