"""Checks builds of torchbcd beside a CUDA build of torch, without a GPU. Run by `make cuda-check`.

`check_build.py 80 90 90+PTX`, with the build on the path and the architectures as arguments, checks the CUDA
kernels: imports the package, asks the dispatcher for a CUDA kernel of each operator, and reads the
architectures off the fat binary.

`check_build.py --without-toolkit BUILD` checks what most people have, torch's CUDA build and no CUDA toolkit:
the package has no CUDA kernels and trains, and a C++ program, built in the folder BUILD, links and runs.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import torch

import torchbcd

FATBIN_MAGIC = 0xBA55ED50
PTX, ELF = 1, 2


def architectures(library: Path) -> set[str]:
    """The architectures in a library's fat binaries: "90" for machine code, "90+PTX" for PTX.

    A fat binary is a header (magic, version, header size, size of what follows) and entries, each with its
    kind, header size, payload size and, 28 bytes in, its architecture.
    """
    content, found, position = library.read_bytes(), set(), 0
    while (position := content.find(struct.pack("<I", FATBIN_MAGIC), position)) >= 0:
        _, _, header, size = struct.unpack_from("<IHHQ", content, position)
        entry, end = position + header, position + header + size
        while entry < end:
            kind, _, entry_header, payload = struct.unpack_from("<HHIQ", content, entry)
            if kind not in (PTX, ELF):
                break
            (architecture,) = struct.unpack_from("<I", content, entry + 28)
            found.add(f"{architecture}+PTX" if kind == PTX else str(architecture))
            entry += entry_header + payload
        position += header
    return found


def by_cuobjdump(library: Path) -> set[str]:
    """The same as NVIDIA's own tool lists them."""
    command = ["cuobjdump", "--list-elf", "--list-ptx", str(library)]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    kinds = re.findall(r"(PTX|ELF) file .*sm_(\d+)", listed)
    return {f"{architecture}+PTX" if kind == "PTX" else architecture for kind, architecture in kinds}


def check_without_toolkit(build: str) -> None:
    """Check the build on the path where there is no CUDA toolkit."""
    if shutil.which("nvcc") or os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH"):
        raise SystemExit("--without-toolkit wants no nvcc on the PATH, no CUDA_HOME and no CUDA_PATH")
    if torch.version.cuda is None:
        raise SystemExit(f"--without-toolkit wants a CUDA build of torch (got {torch.__version__})")
    if torchbcd._build_info.CUDA is not None:
        raise SystemExit(f"the build has CUDA kernels (for CUDA {torchbcd._build_info.CUDA})")
    torch.manual_seed(0)
    x = torch.randn(64, 4)
    y = (x[:, 0] * x[:, 1] > 0).long()
    model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
    before = torch.nn.functional.cross_entropy(model(x), y).item()
    optimizer = torchbcd.RelaxedBCD(model)
    for _ in range(20):
        optimizer.step(x, y)
    after = torch.nn.functional.cross_entropy(model(x), y).item()
    if not after < 0.9 * before:
        raise SystemExit(f"20 steps took the loss from {before} to {after}")
    source = Path(__file__).resolve().parents[1] / "cpp"
    prefixes = f"{torch.utils.cmake_prefix_path};{torchbcd.cmake_prefix_path()}"
    configure = ["cmake", "-G", "Ninja", "-S", source, "-B", build, f"-DCMAKE_PREFIX_PATH={prefixes}"]
    for command in (configure, ["cmake", "--build", build], [Path(build, "api_test")]):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    print(
        f"torch {torch.__version__} without a CUDA toolkit: it trains, and {source.name}/api_test links and runs"
    )


def check_kernels(wanted: set[str]) -> None:
    """Check the CUDA kernels of the build on the path."""
    operators = [
        n for n in torch._C._dispatch_get_all_op_names() if n.startswith("torchbcd::") and "::_" not in n
    ]
    missing = [n for n in operators if not torch._C._dispatch_has_kernel_for_dispatch_key(n, "CUDA")]
    if missing or not operators:
        raise SystemExit(f"operators without a CUDA kernel: {missing or 'all'}")
    library = Path(torchbcd.__file__).parent / "lib" / "libtorchbcd.so"
    found = architectures(library)
    if not wanted <= found:
        raise SystemExit(f"{library.name} lacks {sorted(wanted - found)} (got {sorted(found)})")
    if shutil.which("cuobjdump") and (listed := by_cuobjdump(library)) != found:
        raise SystemExit(f"cuobjdump lists {sorted(listed)} in {library.name}, its headers say {sorted(found)}")
    print(f"torch {torch.__version__}: {len(operators)} operators have CUDA kernels")
    print(f"{library.name} holds {', '.join(sorted(found))}; nothing was run: this needs no GPU")


if __name__ == "__main__":
    if sys.argv[1] == "--without-toolkit":
        check_without_toolkit(sys.argv[2])
    else:
        check_kernels(set(sys.argv[1:]))
