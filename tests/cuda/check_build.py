"""Checks a CUDA build of torchbcd without a GPU: every operator, every architecture.

Run by `make cuda-check` with the build on the path and the architectures as arguments, such as
`check_build.py 80 90 90+PTX`. Imports the package, asks the dispatcher for a CUDA kernel of each operator,
and reads the architectures off the fat binary.
"""

from __future__ import annotations

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


def main() -> None:
    """Check the build on the path."""
    operators = [
        n for n in torch._C._dispatch_get_all_op_names() if n.startswith("torchbcd::") and "::_" not in n
    ]
    missing = [n for n in operators if not torch._C._dispatch_has_kernel_for_dispatch_key(n, "CUDA")]
    if missing or not operators:
        raise SystemExit(f"operators without a CUDA kernel: {missing or 'all'}")
    library = Path(torchbcd.__file__).parent / "lib" / "libtorchbcd.so"
    wanted, found = set(sys.argv[1:]), architectures(library)
    if not wanted <= found:
        raise SystemExit(f"{library.name} lacks {sorted(wanted - found)} (got {sorted(found)})")
    if shutil.which("cuobjdump") and (listed := by_cuobjdump(library)) != found:
        raise SystemExit(f"cuobjdump lists {sorted(listed)} in {library.name}, its headers say {sorted(found)}")
    print(f"torch {torch.__version__}: {len(operators)} operators have CUDA kernels")
    print(f"{library.name} holds {', '.join(sorted(found))}; nothing was run: this needs no GPU")


if __name__ == "__main__":
    main()
