r"""
What a U block solves
=====================

The U block of a layer is, entry by entry,

.. math:: \min_u\ \tfrac12 (\sigma(u) - a)^2 + \tfrac\gamma2 (u - b)^2,

which says: stay near b, and have the activation say a. For most activations that is not convex and may have two
minima. The functions ``torchbcd.functional.prox_*`` return the global one.
"""

import matplotlib.pyplot as plt
import torch

from torchbcd import functional

A, GAMMA = 1.0, 1.0
u = torch.linspace(-3, 2, 1201, dtype=torch.float64)
a = torch.tensor(A, dtype=torch.float64)
ACTIVATIONS = {
    "ReLU": (torch.relu, functional.prox_relu),
    "hardtanh": (lambda t: t.clamp(-1, 1), functional.prox_hardtanh),
    "sign": (lambda t: torch.where(t >= 0, 1.0, -1.0), functional.prox_sign),
}


def value(activation, at, centre):
    """What is minimised."""
    return 0.5 * (activation(at) - A) ** 2 + GAMMA / 2 * (at - centre) ** 2


# %%
# Where two minima tie: the minimiser jumps there as b moves.


def tie(activation, prox):
    """The centre at which the minimiser jumps, the minimisers on either side."""
    centres = torch.linspace(-3, 2, 50_001, dtype=torch.float64)
    minimisers = prox(a, centres, GAMMA)
    jump = int(minimisers.diff().abs().argmax())
    return float(centres[jump]), minimisers[jump : jump + 2]


# %%
# Left: the function of u for the b of the tie, and its two minimisers. Right: the minimiser as a function of b.

figure, grid = plt.subplots(3, 2, figsize=(8, 8.5), layout="constrained")
for (name, (activation, prox)), (left, right) in zip(ACTIVATIONS.items(), grid, strict=True):
    centre, ends = tie(activation, prox)
    left.plot(u, value(activation, u, centre), color="tab:blue")
    left.plot(ends, value(activation, ends, centre), "o", color="tab:red")
    left.set_title(f"{name}: two minimisers, for b = {centre:.2f}")
    left.set_xlabel("u")
    left.set_ylabel("value")
    left.set_ylim(0, 4)

    minimisers = prox(a, u, GAMMA)
    below, above = u <= centre, u > centre
    right.plot(u, u, ":", color="gray", label="u = b: nothing moves")
    right.plot(u[below], minimisers[below], color="tab:blue")
    right.plot(u[above], minimisers[above], color="tab:blue", label="the minimiser")
    right.plot([centre, centre], ends, "o--", color="tab:red", label="the tie")
    right.set_title(f"{name}: the minimiser")
    right.set_xlabel("b")
    right.set_ylabel("u")
    right.legend(loc="lower right")
plt.show()

# %%
# Both minimisers of a tie have the same value, so that either is right:

for name, (activation, prox) in ACTIVATIONS.items():
    centre, ends = tie(activation, prox)
    print(name, [round(float(v), 3) for v in value(activation, ends, centre)])
