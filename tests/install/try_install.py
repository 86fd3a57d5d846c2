"""Tries the ways to install torchbcd, each in a fresh environment, and the failures that users meet on them.

    python tests/install/try_install.py                        all, with the torch that requirements-dev.txt pins
    python tests/install/try_install.py --only pip uv no-cmake
    python tests/install/try_install.py --torch 2.11.0 2.14.1 --only pip cmake
    python tests/install/try_install.py --list

A path has worked if, from another folder, an optimizer takes a step, the operators and TorchScript's classes
are there and a C++ program finds the package, all with the torch that was there before. A failure has ended well
if its last line says what to do. `make install-check` runs all; it takes an hour and a network, so that neither
`make test` nor CI does. Exit status: the number of those that did not end as they should.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from failures import FAILURES, check
from paths import PATHS
from trial import ROOT, Failed, Trial


def pinned_torch() -> str:
    """The release that the project is developed with."""
    return re.search(r"^torch==(\S+)$", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE)[1]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these alone, of those that --list shows")
    parser.add_argument("--torch", nargs="+", metavar="RELEASE", help="releases of torch (2.13.0, say)")
    parser.add_argument("--list", action="store_true", help="print the names, and run nothing")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the environments")
    parser.add_argument("--folder", type=Path, help="where to work; its contents are lost (default: a new one)")
    parser.add_argument("--ccache", action="store_true", help="compile through ccache: three builds' time in all")
    parser.add_argument("--keep", action="store_true", help="leave the last environment and the logs")
    chosen = parser.parse_args()
    if unknown := set(chosen.only or ()) - set(PATHS) - set(FAILURES):
        parser.error(f"--only: no {', '.join(sorted(unknown))}; --list shows the names")
    if chosen.ccache and shutil.which("ccache") is None:
        parser.error("--ccache: there is no ccache on the PATH")
    return chosen


def row(*cells: object) -> str:
    """A line of the table."""
    widths = (22, 8, 8, 7)
    return "| " + " | ".join(str(c).ljust(w) for c, w in zip(cells, widths, strict=False)) + " |"


def main() -> int:
    """Run what was asked for; the number of those that did not end as they should."""
    chosen = arguments()
    trials = {**PATHS, **{name: partial(check, failure=failure) for name, failure in FAILURES.items()}}
    if chosen.list:
        print("paths:", *PATHS, "\nfailures:", *FAILURES, sep="\n  ")
        return 0
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="torchbcd-install-"))
    rows, reasons = [], []
    for torch in chosen.torch or [pinned_torch()]:
        for name in chosen.only or trials:
            trial = Trial(folder, chosen.python, torch, ccache=chosen.ccache)
            trial.log = folder / f"{name}-torch-{torch}.log"
            trial.log.unlink(missing_ok=True)
            print(f"==> {name}, torch {torch} ({trial.log})", flush=True)
            start = time.monotonic()
            result = "good"
            try:
                trial.copy_source()
                trials[name](trial)
            except (Failed, OSError) as error:
                result = "BAD"
                reasons.append(f"{name}, torch {torch}: {error}")
                print(f"    {error}", flush=True)
            minutes = (time.monotonic() - start) / 60
            rows.append(row(name, torch, result, f"{minutes:.1f}"))
            print(f"    {result}, {minutes:.1f} min", flush=True)
    print(
        "", row("path", "torch", "result", "minutes"), row("-" * 22, "-" * 8, "-" * 8, "-" * 7), *rows, sep="\n"
    )
    print(*reasons, sep="\n")
    if not chosen.keep:
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
        if chosen.folder is None and not reasons:
            shutil.rmtree(folder)
    return len(reasons)


if __name__ == "__main__":
    sys.exit(main())
