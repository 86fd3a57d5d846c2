"""Seconds of a training run on any number of ranks, from constants that network.py measures.

gloo's all-reduce, the one that torch.distributed takes on CPUs, is a ring: the numbers are cut into a chunk for
each of the P ranks, and each chunk, in two segments, goes round once to be summed and once to be handed out:
2 (P - 1) hops, one after another. A hop is not one delay: the receiver says that it is ready, then the data come.
So, with the delay L of the network (one way), its rate R, and segments of b / (2 P) bytes, of which two are on
their way at once,

    all-reduce of b bytes = 2 (P - 1) max(h L + o + b / (2 P R), b / (P R)),

where h (about 2; about 1 where there are fewer numbers than 2 P, so that most receivers have been ready for
long) and o, what a hop costs where the network costs nothing, come from all-reduces that were measured. Those of
a step that are under way at the same time (collectives.py) share the rate. A step on n rows of a rank computes
for a + c n seconds, fitted to measured CPU seconds, and computing overlaps with nothing.

`tree`: the same for an all-reduce in 2 log2 P hops, halving and doubling, which gloo does not do here.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import collectives
import numpy as np

SEGMENTS = 2  # of a rank's chunk; with fewer numbers than segments some are empty


def hops(ranks: int, tree: bool = False) -> int:
    """One after another, in an all-reduce."""
    return 2 * math.ceil(math.log2(ranks)) if tree else 2 * (ranks - 1)


def sent(ranks: int, size: float) -> float:
    """Bytes that a rank sends in it, by a ring or by halving and doubling."""
    return 2 * (ranks - 1) * size / ranks


class Hop(NamedTuple):
    """What a hop costs besides its bytes: `delays` times the network's delay, and `own` seconds."""

    delays: float
    own: float


class Network(NamedTuple):
    """Seconds of delay, one way; bytes a second (0: not limited); what hops of few and of many numbers cost."""

    delay: float
    rate: float
    few: Hop
    many: Hop

    def all_reduce(self, ranks: int, numbers: int, tree: bool = False) -> float:
        """Seconds, of float32."""
        if ranks == 1:
            return 0.0
        hop = self.few if numbers < SEGMENTS * ranks else self.many
        wait = hop.delays * self.delay + hop.own
        line = self.line(ranks, numbers)
        if tree:
            return hops(ranks, tree) * wait + line
        return max(hops(ranks) * wait + line / SEGMENTS, line)

    def line(self, ranks: int, numbers: int) -> float:
        """Seconds that a rank needs for the bytes of one."""
        return sent(ranks, 4 * numbers) / self.rate if self.rate else 0.0

    def step(self, ranks: int, order: list[int], tree: bool = False) -> float:
        """Seconds of a step's all-reduces."""
        return collectives.seconds(
            order, lambda n: self.all_reduce(ranks, n, tree), lambda n: self.line(ranks, n)
        )


class Computing(NamedTuple):
    """CPU seconds of a step: `fixed`, and `row` for each row of the rank."""

    fixed: float
    row: float

    def seconds(self, rows: float) -> float:
        """Of a step on so many."""
        return self.fixed + self.row * rows


def fit_computing(steps: Iterable[tuple[float, float]]) -> Computing:
    """Least squares, relative to the seconds, for (rows, seconds) of steps; neither constant is below zero."""
    rows, seconds = np.array(list(steps), dtype=float).T
    if len(set(rows)) < 2:
        return Computing(0.0, float(statistics.mean(seconds / rows)))
    design = np.stack([1 / seconds, rows / seconds], axis=1)
    fixed, row = np.linalg.lstsq(design, np.ones(len(rows)), rcond=None)[0]
    if fixed < 0:
        return Computing(0.0, float(statistics.mean(seconds / rows)))
    return Computing(float(fixed), max(0.0, float(row)))


def fit_hop(quick: Sequence[tuple[int, float]], slow: Sequence[tuple[int, float]], delay: float) -> Hop:
    """From (ranks, seconds) of small all-reduces: where the network costs nothing, and with a delay."""
    own = statistics.median([seconds / hops(ranks) for ranks, seconds in quick]) if quick else 0.0
    all_ = statistics.median([seconds / hops(ranks) for ranks, seconds in slow])
    return Hop(max(0.0, all_ - own) / delay, own) if delay else Hop(0.0, all_)
