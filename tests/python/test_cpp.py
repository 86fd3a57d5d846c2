"""C++ programs, built outside of the project against the installed package, as anybody's would be."""

from __future__ import annotations

import copy
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import torchbcd

ROOT = Path(__file__).resolve().parents[2]
PREFIXES = f"{torch.utils.cmake_prefix_path};{torchbcd.cmake_prefix_path()}"
# One thread: results that can be compared to the bit with Python's. CMake and Ninja lie beside the interpreter.
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
}


def run(*command, cwd=None, fails=False):
    """Run a command; its output, where it succeeds or fails as expected."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, env=ENVIRONMENT, cwd=cwd
    )
    assert (done.returncode != 0) == fails, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout + done.stderr


def configure(source, build, *options, prefixes=PREFIXES, fails=False):
    # Without optimisation, in half the time: it is the library that computes.
    return run(
        *("cmake", "-G", "Ninja", "-S", source, "-B", build, "-DCMAKE_BUILD_TYPE=Release"),
        "-DCMAKE_CXX_FLAGS_RELEASE=-DNDEBUG",
        *(f"-DCMAKE_PREFIX_PATH={prefixes}", *options),
        fails=fails,
    )


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """Every C++ program of the project, built: a folder."""
    folder = tmp_path_factory.mktemp("cpp")
    for source in ("examples/libtorch", "examples/torchscript", "examples/export", "tests/cpp"):
        build = folder / Path(source).name
        configure(ROOT / source, build, f"-DCMAKE_RUNTIME_OUTPUT_DIRECTORY={folder / 'bin'}")
        run("cmake", "--build", build)
    return folder / "bin"


def write_idx(path, array):
    header = struct.pack(f">4B{array.dim()}I", 0, 0, 8, array.dim(), *array.shape)
    path.write_bytes(header + array.to(torch.uint8).numpy().tobytes())


@pytest.fixture
def idx_folder(tmp_path, digits):
    """The digits as the four files of a data set in IDX format."""
    images, labels = (digits[0] * 255).round().reshape(-1, 8, 8), digits[1]
    for part, rows in (("train", slice(1400)), ("t10k", slice(1400, None))):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte", images[rows])
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", labels[rows])
    run("gzip", tmp_path / "train-images-idx3-ubyte")
    return tmp_path


def test_the_public_api(programs):
    assert run(programs / "api_test").strip() == "0 failures"


def test_the_app_trains_as_python_does(programs, idx_folder, digits, one_thread):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 50), nn.ReLU(), nn.Linear(50, 40), nn.ReLU(), nn.Linear(40, 10))
    optimizer = torchbcd.RelaxedBCD(model)
    start, end = idx_folder / "start.pt", idx_folder / "end.pt"
    torchbcd.save_checkpoint(start, model, optimizer)
    command = [programs / "train_mlp", "--data", idx_folder, "--hidden", "50,40", "--batch-size", "100"]
    printed = run(*command, "--epochs", "4", "--seed", "3", "--load", start, "--save", end)

    x, y = (digits[0] * 255).round() / 255, digits[1]
    generator = torch.Generator().manual_seed(3)
    batches = [rows for _ in range(4) for rows in torch.randperm(1400, generator=generator).split(100)]
    for step, rows in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = 1 - step / len(batches)
        optimizer.step(x[rows], y[rows])
    accuracy = 100 * (model(x[1400:]).argmax(1) == y[1400:]).double().mean().item()
    assert f"test {accuracy:.2f} %" in printed.splitlines()[3]

    # What it saved is a file for torch.load, and goes on in Python.
    saved = torch.load(end)["model"]
    for name, value in model.state_dict().items():
        torch.testing.assert_close(saved[name], value, rtol=0, atol=1e-6)
    twin = copy.deepcopy(model)
    restored = torchbcd.RelaxedBCD(twin)
    torchbcd.load_checkpoint(end, twin, restored)
    assert restored.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    rows = batches[0]
    assert restored.step(x[rows], y[rows]).before == pytest.approx(
        optimizer.step(x[rows], y[rows]).before, rel=1e-5
    )


def test_checkpoints_with_bound_data_and_regularizers(programs, tmp_path, one_thread):
    """api_test reads one of Python's, sweeps, and writes it back."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 8, bias=False), nn.ReLU(), nn.Linear(8, 3)).double()
    regularizers = [torchbcd.regularizers.L2(0.1), torchbcd.regularizers.Nonnegative()]
    optimizer = torchbcd.BCD(model, alpha=0.3, rho=[2.0, 1.0], weight_regularizer=regularizers)
    optimizer.bind(torch.randn(30, 6).double(), torch.randint(3, (30,)), sample_weight=torch.rand(30).double())
    optimizer.step()
    torchbcd.save_checkpoint(tmp_path / "python.pt", model, optimizer)
    run(programs / "api_test", tmp_path / "python.pt", tmp_path / "cpp.pt")
    twin = copy.deepcopy(model)
    restored = torchbcd.BCD(twin)
    torchbcd.load_checkpoint(tmp_path / "cpp.pt", twin, restored)
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    assert restored.objective() == optimizer.objective()
    assert [g["weight_regularizer"] for g in restored.param_groups] == regularizers
    for _ in range(3):
        optimizer.step()
        restored.step()
    assert restored.objective() == optimizer.objective()


def test_what_the_app_says_to_bad_input(programs, tmp_path):
    assert "there is no file" in run(programs / "train_mlp", "--data", tmp_path, fails=True)
    assert "usage:" in run(programs / "train_mlp", "--epoch", "3", fails=True)
    for part in ("train", "t10k"):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte", torch.zeros(2, 2, 2))
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", torch.zeros(2))
    model = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 1))
    state = {"model": model.state_dict(), "optimizer": torchbcd.RelaxedBCD(model).state_dict()}
    torch.save(state, tmp_path / "ordered.pt")
    command = [programs / "train_mlp", "--data", tmp_path, "--hidden", "2"]
    assert "save with torchbcd.save_checkpoint" in run(*command, "--load", tmp_path / "ordered.pt", fails=True)
    images = tmp_path / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-1])
    assert "is cut short" in run(*command, fails=True)


def stream(x, y):
    lines = [",".join([str(int(c)), *(f"{v:.9g}" for v in row.tolist())]) for row, c in zip(x, y, strict=True)]
    return "\n".join(lines).encode()


@pytest.fixture
def learner(digits):
    """A model with half of the digits behind it, its optimizer, and the other half."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 10))
    optimizer = torchbcd.RelaxedBCD(model)
    optimizer.fit(digits[0][:700], digits[1][:700], 3, 50)
    return model, optimizer, digits[0][700:], digits[1][700:]


def learn_on(programs, folder, rows, *options):
    command = [programs / "learn_on", "--model", "old.pt", "--out", "new.pt", "--widths", "64,40,10", *options]
    done = subprocess.run(
        list(map(str, command)), input=rows, capture_output=True, check=True, env=ENVIRONMENT, cwd=folder
    )
    found = re.match(r"(\d+) rows, (\S+) % right .*, (-?\d+) KiB", done.stdout.decode())
    return int(found[1]), float(found[2]), int(found[3])


def test_a_device_learns_on(programs, tmp_path, learner, one_thread):
    """Steps as Python's, from a stream, in memory that does not grow with it."""
    model, optimizer, x, y = learner
    torchbcd.save_checkpoint(tmp_path / "old.pt", model, optimizer)
    rows, right, _ = learn_on(programs, tmp_path, stream(x, y))
    expected = 0
    for batch in torch.arange(len(x)).split(50):
        expected += (model(x[batch]).argmax(1) == y[batch]).sum().item()
        optimizer.step(x[batch], y[batch])
    assert rows == len(x)
    assert right == pytest.approx(100 * expected / len(x), abs=0.1)
    twin = copy.deepcopy(model)
    restored = torchbcd.RelaxedBCD(twin)
    torchbcd.load_checkpoint(tmp_path / "new.pt", twin, restored)
    for mine, its in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(its, mine, rtol=0, atol=1e-5)
    long = stream(x, y) + b"\n"
    rows, _, grown = learn_on(programs, tmp_path, long * 10)
    assert rows == 10 * len(x)
    assert grown < 8 * 1024


def test_a_device_solves_for_its_last_layer(programs, tmp_path, learner):
    model, optimizer, x, y = learner
    torchbcd.save_checkpoint(tmp_path / "old.pt", model, optimizer)
    options = ("--learn", "head", "--state", "head.pt", "--alpha", 0.5)
    learn_on(programs, tmp_path, stream(x[:500], y[:500]), *options)
    learn_on(programs, tmp_path, stream(x[500:], y[500:]), *options)
    features = model[:-1](x).detach()
    head = torchbcd.RidgeHead(40, 10)
    head.load_state_dict(torch.load(tmp_path / "head.pt"))
    assert head.rows == len(x)
    expected = torchbcd.RidgeHead(40, 10).partial_fit(features, y).linear(0.5)
    torchbcd.load_checkpoint(tmp_path / "new.pt", model, optimizer)
    torch.testing.assert_close(model[-1].weight, expected.weight, rtol=1e-4, atol=1e-5)
    (tmp_path / "head.pt").unlink()
    learn_on(programs, tmp_path, stream(x, y), *options, "--forget", 100)
    head.load_state_dict(torch.load(tmp_path / "head.pt"))
    recent = (len(x) - 1) // 50 * 50  # where the last batch begins; whole batches are forgotten
    assert head.rows == len(x) - recent + 100
    assert head.weight == head.rows


def test_a_scripted_loop_runs_without_python(programs, tmp_path, one_thread):
    example = ROOT / "examples/torchscript/train.py"
    run(sys.executable, "-W", "ignore", example, "--sweeps", "3", "--out", tmp_path)
    trainer, data = torch.jit.load(tmp_path / "trainer.pt"), torch.jit.load(tmp_path / "data.pt")
    command = [programs / "run_script", "trainer.pt", "data.pt", "5", "trained.pt"]
    printed = run(*command, cwd=tmp_path)
    objective = trainer.train_on(data.x, data.y, 5)
    assert float(re.match(r"objective (\S+)", printed)[1]) == pytest.approx(objective, rel=1e-9)
    trained = torch.jit.load(tmp_path / "trained.pt")
    for mine, its in zip(trainer.parameters(), trained.parameters(), strict=True):
        assert torch.equal(mine, its)
    assert trained.optimizer.sweeps() == 8
    assert "libpython" not in run("ldd", programs / "run_script")


def test_an_exported_step_runs_without_python(programs, tmp_path, one_thread):
    """As many steps as an optimizer's in Python, to the bit."""
    example = ROOT / "examples/export/export_step.py"
    run(sys.executable, "-W", "ignore", example, "--out", tmp_path)
    run(programs / "run_step", tmp_path / "step.pt2", tmp_path / "start.pt", 40, tmp_path / "trained.pt")
    x, y, *parameters = torch.load(tmp_path / "start.pt")
    linears = [nn.Linear(64, 100), nn.Linear(100, 100), nn.Linear(100, 10)]
    model = nn.Sequential(linears[0], nn.ReLU(), linears[1], nn.ReLU(), linears[2])
    with torch.no_grad():
        for mine, start in zip(model.parameters(), parameters, strict=True):
            mine.copy_(start)
    velocity = [torch.zeros_like(p) for p in parameters]
    _, network = torchbcd.functional.network_of(model)
    for k in range(40):
        rows = slice(k % 15 * 100, k % 15 * 100 + 100)
        parameters, velocity = torchbcd.functional.relaxed_step(
            x[rows], y[rows], parameters, velocity, network=network
        )
    trained = torch.load(tmp_path / "trained.pt")
    assert torch.equal(torch.cat([p.flatten() for p in parameters]), trained)
    printed = run(sys.executable, example, "--evaluate", tmp_path / "trained.pt")
    assert float(re.search(r"accuracy (\S+)", printed)[1]) > 80
    assert "libpython" not in run("ldd", programs / "run_step")


@pytest.mark.parametrize(("built", "answer"), [("1.99.0", "built for torch 1.99.0, found torch"), ("", "")])
def test_the_package_checks_its_torch(tmp_path, built, answer):
    """A package that claims another torch is refused, with both versions."""
    copied = tmp_path / "share/cmake/TorchBCD"
    copied.mkdir(parents=True)
    for file in Path(torchbcd.cmake_prefix_path(), "TorchBCD").iterdir():
        text = file.read_text()
        if built:
            text = re.sub(r'(TorchBCD_TORCH_VERSION ")[^"]+', rf"\g<1>{built}", text)
        (copied / file.name).write_text(text)
    for name in ("lib", "include"):
        (tmp_path / name).symlink_to(Path(torchbcd.__file__).parent / name)
    prefixes = f"{torch.utils.cmake_prefix_path};{tmp_path}"
    said = configure(ROOT / "tests/cpp", tmp_path / "build", prefixes=prefixes, fails=bool(built))
    assert answer in " ".join(said.split())


def test_the_package_names_no_path_of_this_machine():
    files = list(Path(torchbcd.cmake_prefix_path(), "TorchBCD").iterdir())
    assert {file.name for file in files} >= {"TorchBCDConfig.cmake", "TorchBCDConfigVersion.cmake"}
    for file in files:
        assert str(ROOT) not in file.read_text()
        assert str(Path(torch.__file__).parent) not in file.read_text()
