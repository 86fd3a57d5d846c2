"""The all-reduces of a step, some of them under way at the same time, as torch's profiler sees them.

An order is what a process does, one thing after another: n > 0 begins an all-reduce of n numbers, -k waits for
the k-th that was begun.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

BEGINS, WAITS = "_c10d_functional::all_reduce_", "_c10d_functional::wait_tensor"


def order_of(step: Callable[[], object]) -> list[int]:
    """The order of a call."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, record_shapes=True) as profile:
        step()
    order: list[int] = []
    waiting: list[tuple[int, int]] = []
    for event in sorted(profile.events(), key=lambda event: event.time_range.start):
        if event.name not in {BEGINS, WAITS}:
            continue
        numbers = torch.Size(event.input_shapes[0]).numel()
        if event.name == BEGINS:
            order.append(numbers)
            waiting.append((numbers, len(begun(order))))
        else:
            first = next(entry for entry in waiting if entry[0] == numbers)
            waiting.remove(first)
            order.append(-first[1])
    return order


def begun(order: list[int]) -> list[int]:
    """The numbers of each all-reduce."""
    return [n for n in order if n > 0]


def seconds(order: list[int], alone: Callable[[int], float], line: Callable[[int], float]) -> float:
    """Seconds that a step's all-reduces take where nothing else does.

    One of n numbers takes `alone(n)` by itself; those under way at the same time share a line, of which each
    needs `line(n)` seconds.
    """
    now, free, ends = 0.0, 0.0, []
    for what in order:
        if what > 0:
            free = max(now, free) + line(what)
            ends.append(max(now + alone(what), free))
        else:
            now = max(now, ends[-what - 1])
    return now


def in_turn(order: list[int]) -> int:
    """How many wait for one another."""
    return round(seconds(order, lambda _: 1.0, lambda _: 0.0))
