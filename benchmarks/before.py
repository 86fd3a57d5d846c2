"""The defaults of RelaxedBCD until they were chosen anew: what older tables of docs/ were measured with."""

from __future__ import annotations

from typing import Any

BEFORE: dict[str, Any] = {
    "relaxation": 0.3,
    "growth": 1.0,
    "damping": 0.1,
    "output_relaxation": 0.05,
    "cap": None,
    "penalty_ratio": 0.01,
    "momentum": 0.0,
    "weight_decay": 0.0,
}
FIT_BEFORE: dict[str, Any] = {"batch_size": 200, "hold": 0.0, "average": None}
