"""What has to work wherever torchbcd is installed: `python -I smoke.py [FOLDER [RELEASE]]`, started anywhere.

FOLDER is where the package has to lie, RELEASE the torch that has to be there. Prints what CMAKE_PREFIX_PATH has
to be for a C++ program. `-I` keeps the folder that it is started in, and PYTHONPATH, out.
"""

import sys
from pathlib import Path

import torch
from torch import nn

import torchbcd
from torchbcd import _build_info

folder, release = [*sys.argv[1:], None, None][:2]
assert folder is None or Path(torchbcd.__file__).is_relative_to(folder), torchbcd.__file__
assert release is None or torch.__version__.split("+")[0] == release, f"torch {torch.__version__}, not {release}"
assert torch.__version__ == _build_info.TORCH_VERSION, f"built for torch {_build_info.TORCH_VERSION}"

torch.manual_seed(0)
x = torch.randn(64, 4)
y = (x[:, 0] * x[:, 1] > 0).long()
model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
before = nn.functional.cross_entropy(model(x), y)
optimizer = torchbcd.RelaxedBCD(model)
optimizer.step(x, y)
assert nn.functional.cross_entropy(model(x), y) < before
assert torch.equal(torch.ops.torchbcd.prox_relu(x, x, 1.0), torchbcd.functional.prox_relu(x, x, 1.0))
optimizer.script_object()
print(torch.utils.cmake_prefix_path, torchbcd.cmake_prefix_path(), sep=";")
