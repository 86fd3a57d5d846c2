"""What ``RelaxedBCD.fit`` and torchbcd.sklearn set by rules where they are not told (docs/relaxed.md)."""

from __future__ import annotations

__all__ = ["average", "weight_decay"]

_EPOCHS = 20  # of which a tenth, two epochs, is averaged over


def weight_decay(least: float, batch: int, rows: int) -> float:
    """The part of W that is taken off before a step: more on few rows, which a net would over-fit."""
    return float(min(0.012, max(least, 0.75 * batch / rows**1.5)))


def average(steps: int, epochs: int) -> float | None:
    """The decay of the average of the weights, for so many steps in an epoch.

    Over a tenth of the run, and over two epochs at most, since weights from far apart have no useful mean. None
    where the run is too short.
    """
    window = steps * min(epochs, _EPOCHS)
    return 1 - 10 / window if window > 10 else None
