"""What a trial works with: a fresh environment, a copy of the sources, commands and what they say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What would let a trial see this environment, or build something else than most people do.
HIDDEN = ("VIRTUAL_ENV", "CONDA_PREFIX", "CUDA_HOME", "CUDA_PATH", "FORCE_CUDA", "CMAKE_PREFIX_PATH", "Torch_DIR")
BUILD_TOOLS = ("setuptools>=77", "cmake>=3.28", "ninja")


class Failed(Exception):
    """A trial did not end as it should."""


def last_word(output: str) -> str:
    """The last line that the build, or Python, printed: without what pip and uv add after it."""
    lines = [re.sub(r"^[^\w$`'\"({[]+", "", line).strip() for line in output.splitlines()]
    ends = [i for i, line in enumerate(lines) if line.startswith(("[end of output]", "hint: "))]
    lines = lines[: ends[0]] if ends else lines
    return next((line for line in reversed(lines) if line), "")


class Trial:
    """One trial: a folder with an environment in it, the sources beside it, and a log of all that was said.

    The folders have the same names in every trial, so that a compiler cache sees the same commands.

    Args:
        folder: Where everything of this trial lies.
        python: The interpreter that the environment is made with.
        torch: The release of torch that is tried.
        ccache: Whether to compile through ccache.
    """

    def __init__(self, folder: Path, python: str, torch: str, *, ccache: bool) -> None:
        self.folder, self.python, self.torch = folder, python, torch
        self.environment, self.source, self.elsewhere = (folder / n for n in ("env", "source", "elsewhere"))
        self.log = folder / "log.txt"
        own = Path(sys.prefix) if sys.prefix != sys.base_prefix else None
        path = [
            part for part in os.environ["PATH"].split(os.pathsep) if own is None or own not in Path(part).parents
        ]
        self.path = os.pathsep.join(path)
        self.variables = {
            name: value
            for name, value in os.environ.items()
            if name not in HIDDEN and not name.startswith(("PYTHON", "TORCHBCD_"))
        }
        # The kernels are `make cuda-check`'s; they would take most of the time.
        self.variables["TORCHBCD_CUDA"] = os.environ.get("TORCHBCD_CUDA", "0")
        self.variables["UV_CACHE_DIR"] = str(folder / "uv-cache")
        if ccache:
            self.variables |= {
                "CMAKE_CXX_COMPILER_LAUNCHER": "ccache",
                "CCACHE_BASEDIR": str(folder),
                "CCACHE_NOHASHDIR": "1",
                "CCACHE_SLOPPINESS": "time_macros,include_file_mtime,include_file_ctime",
            }
        self.clear()

    def clear(self) -> None:
        """Remove everything but the logs, and what trials share."""
        kept = self.folder / f"stock-{self.torch}"
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if path.is_dir() and path != kept and not (path / "shared").exists():
                shutil.rmtree(path)
        self.elsewhere.mkdir(parents=True, exist_ok=True)

    @property
    def interpreter(self) -> Path:
        """The environment's Python."""
        return self.environment / "bin" / "python"

    def attempt(self, *command: object, cwd: Path | None = None, **variables: str) -> tuple[int, str]:
        """Run a command in the environment; its exit status and what it said."""
        path = f"{self.environment / 'bin'}{os.pathsep}{self.path}"
        done = subprocess.run(
            [str(part) for part in command],
            cwd=cwd or self.elsewhere,
            env={"PATH": path, **{k: v for k, v in self.variables.items() if k != "PATH"}, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        with self.log.open("a") as log:
            log.write(f"$ {' '.join(map(str, command))}\n{done.stdout}\n[exit status {done.returncode}]\n\n")
        return done.returncode, done.stdout

    def run(self, *command: object, cwd: Path | None = None, **variables: str) -> str:
        """Run a command that has to work; what it said."""
        status, output = self.attempt(*command, cwd=cwd, **variables)
        if status != 0:
            raise Failed(f"{' '.join(str(part) for part in command[:5])} ...: {last_word(output)}")
        return output

    def pip(self, *arguments: object, cwd: Path | None = None) -> str:
        """Run the environment's pip."""
        return self.run(self.interpreter, "-m", "pip", *arguments, cwd=cwd)

    def make_environment(self, *packages: str, torch: bool = True, shared: bool = False) -> None:
        """A fresh environment with torch, and these packages, in it.

        Args:
            packages: What is installed beside pip.
            torch: Whether torch is.
            shared: Whether the next trial that asks for the same may have it: this one changes nothing of it.
        """
        wanted = " ".join([f"torch {self.torch if torch else None}", *packages])
        marker = self.environment / "shared"
        if shared and marker.exists() and marker.read_text() == wanted:
            return
        shutil.rmtree(self.environment, ignore_errors=True)
        stock = self.folder / f"stock-{self.torch}"
        if torch and stock.is_dir():  # gigabytes, which are unpacked once and then copied to where they were
            shutil.copytree(stock, self.environment, symlinks=True)
        else:
            self.run(self.python, "-m", "venv", self.environment)
        if torch and not stock.is_dir():  # not compiled to bytecode: most of torch is never imported here
            self.pip("install", "--quiet", "--no-compile", f"torch=={self.torch}", "numpy")
            shutil.copytree(self.environment, stock, symlinks=True)
        if packages:
            self.pip("install", "--quiet", *packages)
        if shared:
            marker.write_text(wanted)

    def copy_source(self) -> None:
        """The sources as a fresh clone would have them, edits that are not yet committed included."""
        shutil.rmtree(self.source, ignore_errors=True)
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        ).stdout.splitlines()
        if not listed:  # an unpacked source archive
            shutil.copytree(ROOT, self.source, ignore=shutil.ignore_patterns("build", "*.egg-info", ".venv*"))
            return
        for name in listed:
            if (ROOT / name).is_file():
                (self.source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.source / name)

    def programs(self, *, without: tuple[str, ...] = (), instead: dict[str, str] | None = None) -> str:
        """A folder for the PATH: what is on it, without some programs, and scripts in place of others."""
        folder = self.folder / "programs"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for part in map(Path, self.path.split(os.pathsep)):
            for program in part.iterdir() if part.is_dir() else ():
                link = folder / program.name
                if not link.is_symlink() and not any(re.fullmatch(name, program.name) for name in without):
                    link.symlink_to(program)
        for name, script in (instead or {}).items():
            (folder / name).unlink(missing_ok=True)
            (folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / name).chmod(0o755)
        return str(folder)
