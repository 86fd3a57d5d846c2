"""What ``RelaxedBCD.fit`` and torchbcd.sklearn set by rules where they are not told (docs/relaxed.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["average", "set_weight_decays", "weight_decay"]

_EPOCHS = 20  # of which a tenth, two epochs, is averaged over


def weight_decay(least: float, batch: int, rows: int) -> float:
    """The part of W that is taken off before a step: more on few rows, which a net would over-fit."""
    return float(min(0.012, max(least, 0.75 * batch / rows**1.5)))


def set_weight_decays(
    groups: Sequence[dict[str, Any]], least: Sequence[float], batch: int, rows: int, steps: int
) -> None:
    """Set every layer's where it is None and ``least``, the library's default, is not 0.

    The last of several layers, whose default is 0, has the others', but no more than 1 / steps, of which a run
    takes 1 - 1/e off it: hidden layers refit what the last one loses faster than they lose anything, and grow by
    as much.
    """
    last = len(groups) - 1
    for layer, group in enumerate(groups):
        base = max(least) if layer == last else least[layer]
        terms = group["weight_regularizer"]
        if group["weight_decay"] is None and not (terms and terms.penalizes) and base > 0:
            decay = weight_decay(base, batch, rows)
            group["weight_decay"] = min(decay, 1 / steps) if 0 < layer == last else decay


def average(steps: int, epochs: int, groups: Sequence[dict[str, Any]] = ()) -> float | None:
    """The decay of the average of the weights, for so many steps in an epoch.

    Over a tenth of the run, and over two epochs at most, since weights from far apart have no useful mean. None
    where the run is too short, and where a layer's regulariser has norms: an average has no exact zeros left, and
    rounding may have led it out of a ball.
    """
    window = steps * min(epochs, _EPOCHS)
    has_norms = any(getattr(group["weight_regularizer"], "has_norms", False) for group in groups)
    return 1 - 10 / window if window > 10 and not has_norms else None
