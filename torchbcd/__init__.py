"""Train MLPs by block coordinate descent with variable splitting, in place of backpropagation.

Example:
    >>> import torch, torchbcd
    >>> model = torch.nn.Sequential(
    ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
    ... )
    >>> optimizer = torchbcd.BCD(model, gamma=1.0, alpha=0.1)
    >>> report = optimizer.step(torch.randn(32, 4), torch.randint(3, (32,)))
    >>> report.sweep
    1
"""

from torchbcd._load import load as _load

_load()

from torchbcd import _fakes, diagnostics, functional, losses, nn, regularizers  # noqa: E402
from torchbcd._build_info import TORCHBCD_VERSION as __version__  # noqa: E402
from torchbcd.bcd import BCD, Variables  # noqa: E402
from torchbcd.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from torchbcd.dladmm import DLADMM, DladmmVariables  # noqa: E402
from torchbcd.dlam import DLAM, DlamVariables, EpsSchedule  # noqa: E402
from torchbcd.package import cmake_prefix_path  # noqa: E402
from torchbcd.preprocessing import standardize_, unstandardize_  # noqa: E402
from torchbcd.pruning import prune_zeros  # noqa: E402
from torchbcd.relaxed import RelaxedBCD  # noqa: E402
from torchbcd.reports import DladmmReport, DlamReport, FitResult, RelaxedReport, SweepReport  # noqa: E402
from torchbcd.ridge_head import RidgeHead, refit_last_layer  # noqa: E402
from torchbcd.special_cases import MAC, ZhangBrand  # noqa: E402

__all__ = [
    "BCD",
    "DLADMM",
    "DLAM",
    "MAC",
    "DladmmReport",
    "DladmmVariables",
    "DlamReport",
    "DlamVariables",
    "EpsSchedule",
    "FitResult",
    "RelaxedBCD",
    "RelaxedReport",
    "RidgeHead",
    "SweepReport",
    "Variables",
    "ZhangBrand",
    "__version__",
    "cmake_prefix_path",
    "diagnostics",
    "functional",
    "load_checkpoint",
    "losses",
    "nn",
    "prune_zeros",
    "refit_last_layer",
    "regularizers",
    "save_checkpoint",
    "standardize_",
    "unstandardize_",
]

del _fakes
