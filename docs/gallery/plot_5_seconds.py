"""
Accuracy against seconds
========================

Fashion-MNIST, a 784-300-300-300-10 ReLU net on one core of a CPU: :class:`torchbcd.RelaxedBCD` beside AdamW and
Muon, all searched alike, and with its defaults. Seconds on whatever machine builds these pages would say little,
so this picture is drawn from measurements that are kept: ``docs/results/training.json``, which
``benchmarks/compare_training.py`` writes (:doc:`/results/training`). A point is a run of its own, whose schedule
ends with its budget.
"""

import json
import statistics
from collections import defaultdict
from pathlib import Path

import matplotlib.pyplot as plt

measured = json.loads(Path("../results/training.json").read_text())  # these scripts run in docs/gallery
SHOWN = {
    "RelaxedBCD, searched": ("black", "o-"),
    "RelaxedBCD, defaults": ("black", "o:"),
    "AdamW": ("tab:blue", "s-"),
    "Muon, float32": ("tab:orange", "^-"),
    "Muon of torch": ("tab:orange", "v:"),
}
scores = {name: defaultdict(list) for name in SHOWN}
for run in measured["runs"]:
    if run["set"] == "fashion-mnist" and run["contestant"] in SHOWN:
        scores[run["contestant"]][run["budget"]].append(run["score"])

# %%
# The mean of the seeds, and their range as a band.

figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
for name, (color, style) in SHOWN.items():
    budgets = sorted(scores[name])
    runs = [scores[name][budget] for budget in budgets]
    axes.plot(budgets, [statistics.mean(run) for run in runs], style, color=color, label=name)
    axes.fill_between(budgets, [min(run) for run in runs], [max(run) for run in runs], color=color, alpha=0.12)
axes.set_xscale("log")
axes.set_xticks(budgets, [f"{budget:g}" for budget in budgets])
axes.minorticks_off()
axes.set_xlabel("seconds of one core (logarithmic)")
axes.set_ylabel("test accuracy (%)")
axes.set_title("Fashion-MNIST: accuracy for so many seconds of training")
axes.grid(alpha=0.3)
axes.legend(loc="lower right")
plt.show()

# %%
# The figures, with those who are not drawn, and other data sets, are in :doc:`/results/training`.

for name in SHOWN:
    print(
        f"{name:20}", {budget: round(statistics.mean(scores[name][budget]), 2) for budget in sorted(scores[name])}
    )
