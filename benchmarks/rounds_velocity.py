"""What RelaxedBCD's momentum should go by after an average of the weights: a worker's last step, none, a mean.

    python benchmarks/rounds_velocity.py

Momentum goes on by a part of the process's own last step, which an average of the weights leaves as it is. Here
that is compared with forgetting it, and with averaging it too, for twice the bytes: 16 workers, Fashion-MNIST,
784-300x3-10, one epoch in so many rounds, defaults, steps held for half of the run; accuracy on the last 10,000
training rows.
"""

from __future__ import annotations

import argparse
import statistics

import data_sets
import rounds
import torch
from data_sets import SETS
from training_report import head, row

NAMES = ("weight_velocity", "bias_velocity")


def forget(workers: list[rounds.Worker]) -> None:
    """The next step begins at the average."""
    for worker in workers:
        state = worker.optimizers[0].state_dict()
        for name in NAMES:
            state["torchbcd"]["tensors"].pop(name, None)
        worker.optimizers[0].load_state_dict(state)


def mean(workers: list[rounds.Worker]) -> None:
    """All go on by the mean of their last steps."""
    states = [worker.optimizers[0].state_dict() for worker in workers]
    for name in NAMES:
        tensors = [state["torchbcd"]["tensors"][name] for state in states]
        means = [torch.stack(layer).mean(0) for layer in zip(*tensors, strict=True)]
        for state in states:
            state["torchbcd"]["tensors"][name] = means
    for worker, state in zip(workers, states, strict=True):
        worker.optimizers[0].load_state_dict(state)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, nargs="+", default=[1, 5, 15], help="default: 1 5 15")
    parser.add_argument("--seeds", type=int, default=3, help="default: 3")
    data_sets.add_arguments(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    set_ = SETS["fashion-mnist"]
    data = data_sets.load(set_, "validation", arguments)
    cases = [
        rounds.Case(f"{'by label' if by_label else 'at random'}, {syncs} rounds", 16, by_label, syncs)
        for by_label in (False, True)
        for syncs in arguments.rounds
    ]
    print("\n".join(head("after an average", *(case.name for case in cases))))
    for name, after in {"its own last step": None, "none": forget, "the mean": mean}.items():
        cells = []
        for case in cases:
            options = rounds.setting("RelaxedBCD", case, 0)
            scores = [
                data_sets.score(
                    rounds.train("RelaxedBCD", options, case, data, set_, case.syncs, seed, 1.0, after), data
                )
                for seed in range(arguments.seeds)
            ]
            cells.append(f"{statistics.mean(scores):.2f} ({min(scores):.2f} to {max(scores):.2f})")
        print(row(name, *cells), flush=True)


if __name__ == "__main__":
    main()
