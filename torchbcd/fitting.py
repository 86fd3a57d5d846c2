"""Sweeps until a residual is small: what ``BCD.fit`` and ``DLAM.fit`` have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from torchbcd import arguments
from torchbcd.linear_rate import rate_of
from torchbcd.reports import FitResult

__all__ = ["check", "sweep_until"]


class Report(Protocol):
    """What is looked at after a sweep."""

    @property
    def objective(self) -> float:
        """Of the sweep."""

    @property
    def residual(self) -> float:
        """The distance of zero from the objective's subdifferential."""


ReportT = TypeVar("ReportT", bound=Report)


def check(max_sweeps: int, tol: float) -> int:
    """The number of sweeps, as an int.

    Raises:
        ValueError: A number is out of range.
    """
    count = arguments.whole("max_sweeps", max_sweeps)
    if count < 1:
        raise ValueError(f"max_sweeps must be at least 1 (got {max_sweeps})")
    if not tol >= 0:
        raise ValueError(f"tol must be >= 0 (got {tol})")
    return count


def sweep_until(
    step: Callable[[], ReportT],
    max_sweeps: int,
    tol: float,
    callback: Callable[[ReportT], object] | None,
    phase: Callable[[ReportT], object] = lambda report: None,
    last_phase: Callable[[int, ReportT], bool] = lambda sweep, report: True,
) -> FitResult:
    """Step until the residual is at most `tol` in the last phase.

    `phase` tells objectives apart that are values of different functions, `last_phase` whether there will be no
    other, after a number of sweeps.
    """
    objectives: list[float] = []
    now = None
    for sweep in range(1, max_sweeps + 1):
        report = step()
        if callback is not None:
            callback(report)
        if tol > 0:
            objectives = [*(objectives if phase(report) == now else []), report.objective]
            now = phase(report)
        last = last_phase(sweep, report)
        if tol > 0 and last and report.residual <= tol:
            break
    return FitResult(
        sweep, last and report.residual <= tol, report.objective, report.residual, rate_of(objectives)
    )
