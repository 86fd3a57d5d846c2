"""The memory that a process with bound data in a folder needs for itself."""

from __future__ import annotations

import shutil
import subprocess
import sys

PROGRAM = """
import sys, threading
import torch, torchbcd
from torch import nn

def anonymous():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon"):
            return int(line.split()[1])

torch.set_num_threads(1)
rows, folder = int(sys.argv[1]), sys.argv[2]
torch.manual_seed(0)
model = {model}
x = torch.from_file(folder + "/data", shared=True, size=rows * 16).view(rows, 16)
y = torch.from_file(folder + "/labels", shared=True, size=rows, dtype=torch.int64)
for part in range(0, rows, 10_000):
    x[part : part + 10_000].normal_()
y.copy_(torch.zeros((), dtype=torch.int64))
most, ended = 0, threading.Event()
def watch():
    global most
    while not ended.wait(0.001):
        most = max(most, anonymous())
thread = threading.Thread(target=watch)
thread.start()
optimizer = {optimizer}
optimizer.bind(x, y, scratch_dir=folder)
for _ in range(2):
    optimizer.step().objective
with torch.no_grad():
    model[0].bias.add_(0.1)
optimizer.objective()
ended.set()
thread.join()
print(most)
"""


def grows_with_the_rows(folder, model, optimizer, rows):
    """Whether the peak of its own pages, sampled, is a tenth more with four times the rows.

    `model`, of 16 inputs, and `optimizer`, of cross-entropy, are expressions.
    """
    program = PROGRAM.format(model=model, optimizer=optimizer)
    most = []
    for count in (rows, 4 * rows):
        of_run = folder / str(count)
        of_run.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", program, str(count), str(of_run)], check=True, capture_output=True, text=True
        )
        most.append(int(done.stdout))
        shutil.rmtree(of_run)
    return most[1] > 1.1 * most[0]
