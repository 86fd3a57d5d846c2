"""The CUDA kernels: the tables of the CPU tests on a GPU, and the formulas as nvcc compiles them.

What needs a GPU is skipped, with the reason, where there is none; with TORCHBCD_REQUIRE_CUDA=1 it fails.
"""

from __future__ import annotations

import copy
import ctypes
import os
import shutil
import subprocess
import warnings
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from conftest import ACTIVATIONS, MORE_ACTIVATIONS, make_data, make_mlp
from tables import OPTIMIZERS, operators
from torch import nn

import torchbcd

ROOT = Path(__file__).resolve().parents[2]
REQUIRED = os.environ.get("TORCHBCD_REQUIRE_CUDA") == "1"


def unavailable():
    """Why nothing can be run on a GPU, or None."""
    if torchbcd._build_info.CUDA is None:
        return f"torchbcd was built without CUDA kernels (for torch {torchbcd._build_info.TORCH_VERSION})"
    if not torch.cuda.is_available():
        return "torch finds no GPU"
    return None


@pytest.fixture
def cuda():
    if reason := unavailable():
        if REQUIRED:
            pytest.fail(f"TORCHBCD_REQUIRE_CUDA=1, but {reason}")
        pytest.skip(reason)
    return torch.device("cuda")


def moved(value, device):
    if isinstance(value, torch.Tensor):
        return value.to(device)
    return value


def on(optimizer_of, model, device):
    """The optimizer over a copy of the model on a device."""
    twin = copy.deepcopy(model).to(device)
    return twin, optimizer_of(twin)


def assert_models_agree(left, right, rtol=1e-7):
    for a, b in zip(left.parameters(), right.parameters(), strict=True):
        torch.testing.assert_close(a.cpu(), b.cpu(), rtol=rtol, atol=rtol)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_operators(cuda, dtype):
    """Every operator gives on a GPU what it gives on the CPU."""

    def converted(value):
        return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    for op, arguments, named in operators():
        arguments = [converted(a) for a in arguments]
        named = {name: converted(a) for name, a in named.items()}
        on_gpu = {name: moved(a, cuda) for name, a in named.items()}
        expected = op(*arguments, **named)
        found = op(*(moved(a, cuda) for a in arguments), **on_gpu)
        pairs = zip(named.values(), on_gpu.values(), strict=True) if named else [(expected, found)]
        tolerance = 1e-4 if dtype == torch.float32 else 1e-9
        for left, right in pairs:
            for a, b in zip(*((p,) if isinstance(p, torch.Tensor) else p for p in (left, right)), strict=True):
                assert b.device.type == "cuda"
                torch.testing.assert_close(b.cpu(), a, rtol=tolerance, atol=tolerance, msg=str(op))


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_sweeps(cuda, kind):
    """Five sweeps give the CPU's weights; the state goes from one device to the other."""
    x, y = make_data(40, 6, 3)
    if "hinge" in kind or "box" in kind:
        y = 2.0 * nn.functional.one_hot(y, 3).double() - 1
    start = make_mlp([6, 8, 7, 3], hidden=["relu", "leaky_relu"])
    model, optimizer = on(OPTIMIZERS[kind], start, "cpu")
    twin, on_gpu = on(OPTIMIZERS[kind], start, cuda)
    optimizer.bind(x, y)
    on_gpu.bind(x.to(cuda), y.to(cuda))
    for _ in range(5):
        optimizer.step()
        on_gpu.step()
    assert_models_agree(model, twin)
    assert on_gpu.objective() == pytest.approx(optimizer.objective(), rel=1e-6)
    third, restored = on(OPTIMIZERS[kind], start, "cpu")
    third.load_state_dict(twin.state_dict())
    restored.load_state_dict(on_gpu.state_dict())
    restored.step()
    on_gpu.step()
    assert_models_agree(third, twin)


@pytest.mark.parametrize("hidden", [*ACTIVATIONS, *MORE_ACTIVATIONS])
@pytest.mark.parametrize("make", [torchbcd.BCD, torchbcd.RelaxedBCD], ids=lambda c: c.__name__)
def test_activations(cuda, make, hidden):
    x, y = make_data(50, 6, 3)
    start = make_mlp([6, 9, 3], hidden=hidden)
    model, optimizer = on(make, start, "cpu")
    twin, on_gpu = on(make, start, cuda)
    for rows in torch.arange(50).split(25):
        optimizer.step(x[rows], y[rows])
        on_gpu.step(x[rows].to(cuda), y[rows].to(cuda))
    assert_models_agree(model, twin, 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_objective_never_rises(cuda, dtype):
    x, y = make_data(200, 20, 4, dtype=dtype)
    model = make_mlp([20, 30, 25, 4], dtype=dtype).to(cuda)
    optimizer = torchbcd.BCD(model, alpha=0.05)
    optimizer.bind(x.to(cuda), y.to(cuda))
    values = [optimizer.objective()]
    for _ in range(20):
        optimizer.step()
        values.append(optimizer.objective())
    slack = 1e-5 if dtype == torch.float32 else 1e-12
    assert all(after <= before * (1 + slack) for before, after in pairwise(values))

    relaxed = torchbcd.RelaxedBCD(model)
    for _ in range(5):
        certificate = relaxed.step(x.to(cuda), y.to(cuda)).certificate
        assert certificate.after <= certificate.before * (1 + slack)


def test_other_streams_and_devices(cuda):
    """A sweep runs on the stream that is current, and on the device of its tensors."""
    x, y = make_data(64, 6, 3, dtype=torch.float32)
    start = make_mlp([6, 8, 3], dtype=torch.float32)
    model, optimizer = on(torchbcd.BCD, start, cuda)
    optimizer.step(x.to(cuda), y.to(cuda))
    twin, other = on(torchbcd.BCD, start, cuda)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        other.step(x.to(cuda), y.to(cuda))
    stream.synchronize()
    assert_models_agree(model, twin, 1e-6)
    if torch.cuda.device_count() > 1:
        last = torch.device("cuda", torch.cuda.device_count() - 1)
        third, elsewhere = on(torchbcd.BCD, start, last)
        elsewhere.step(x.to(last), y.to(last))
        assert_models_agree(model, third, 1e-6)


def test_data_on_another_device_are_refused(cuda):
    x, y = make_data(20, 6, 3)
    optimizer = torchbcd.BCD(make_mlp([6, 8, 3]).to(cuda))
    with pytest.raises(ValueError, match="device"):
        optimizer.step(x, y)


def test_how_often_a_sweep_waits(cuda):
    """The host waits for checks of data and weights, penalties and factorisations: not for every block."""
    x, y = (t.to(cuda) for t in make_data(200, 784, 10, dtype=torch.float32))
    model = make_mlp([784, 300, 300, 300, 10], dtype=torch.float32).to(cuda)
    for make, most in ((torchbcd.RelaxedBCD, 19), (torchbcd.BCD, 12)):
        optimizer = make(copy.deepcopy(model))
        optimizer.step(x, y)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")  # which warns that it is a prototype
            try:
                optimizer.step(x, y)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        waits = [str(w.message) for w in caught if "called a synchronizing" in str(w.message)]
        assert len(waits) <= most, (make.__name__, waits)


# --- the formulas as nvcc compiles them: no GPU needed --------------------------------------------------------


@pytest.fixture(scope="session")
def compiled_formulas(tmp_path_factory):
    """csrc/functors through nvcc's host pass, as a function of (op, name, parameters, numbers, inputs)."""
    if shutil.which("nvcc") is None:
        reason = "there is no nvcc on the PATH"
        if REQUIRED:
            pytest.fail(f"TORCHBCD_REQUIRE_CUDA=1, but {reason}")
        pytest.skip(reason)
    library = tmp_path_factory.mktemp("nvcc") / "functors_host.so"
    source = ROOT / "tests/cuda/functors_host.cu"
    flags = [
        "-std=c++20",
        "-O3",
        "--expt-relaxed-constexpr",
        "-shared",
        "-arch=sm_80",
        f"-I{ROOT / 'csrc'}",
        f"-I{ROOT / 'csrc/include'}",
    ]
    host = ["-Xcompiler", "-fPIC,-ffp-contract=off"]
    done = subprocess.run(
        ["nvcc", *flags, *host, source, "-o", library], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    function = ctypes.CDLL(str(library)).torchbcd_evaluate
    function.restype = ctypes.c_bool

    def evaluate(op, name, parameters, numbers, inputs, outputs=1):
        inputs = [t.contiguous() for t in inputs]
        results = [torch.empty_like(inputs[-1]) for _ in range(outputs)]

        def doubles(values):
            return (ctypes.c_double * max(1, len(values)))(*values)

        def pointers(tensors):
            return (ctypes.c_void_p * len(tensors))(*(t.data_ptr() for t in tensors))

        known = function(
            op.encode(),
            name.encode(),
            doubles(parameters),
            len(parameters),
            doubles(numbers),
            pointers(inputs),
            pointers(results),
            ctypes.c_int64(inputs[-1].numel()),
            inputs[-1].dtype == torch.float64,
        )
        assert known, f"{op} of {name} is unknown"
        return results

    return evaluate


PARAMETERS = {
    "leaky_relu": [0.1],
    "hardtanh": [-0.75, 1.25],
    "polynomial": [0.5, -1.0, 0.0, 0.3],
    "elu": [1.7, 1.05],
    "softplus": [2.0, 20.0],
    "softshrink": [0.5],
    "hardshrink": [0.5],
    "threshold": [0.25, -0.5],
}
NAMES = [
    "identity",
    "relu",
    "leaky_relu",
    "sigmoid",
    "tanh",
    "hardtanh",
    "hardsigmoid",
    "silu",
    "sign",
    "polynomial",
    "gelu",
    "gelu_tanh",
    "elu",
    "softplus",
    "mish",
    "hardswish",
    "logsigmoid",
    "softsign",
    "tanhshrink",
    "softshrink",
    "hardshrink",
    "threshold",
    "sine",
]
JUMPS = ("sign", "hardshrink", "threshold")
WITHOUT_PREIMAGES = (*JUMPS, "silu", "gelu", "gelu_tanh", "mish", "hardswish", "sine")


def spread(dtype, count=3, rows=400):
    """Entries over many magnitudes, with zeros and ties among them."""
    generator = torch.Generator().manual_seed(5)
    tensors = []
    for _ in range(count):
        t = torch.randn(rows, 5, generator=generator, dtype=torch.float64)
        t *= 10 ** torch.empty(rows, 1, dtype=torch.float64).uniform_(-6, 3, generator=generator)
        t[::17] = 0
        tensors.append(t.to(dtype))
    tensors[-1][::11] = tensors[0][::11]
    return tensors


def equal_bits(left, right):
    return torch.equal(left.view(torch.uint8), right.view(torch.uint8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_activation_formulas_to_the_bit(compiled_formulas, name, dtype):
    ops, parameters = torch.ops.torchbcd, PARAMETERS.get(name, [])
    a, b, c = spread(dtype)
    out = torch.empty_like(a)
    ops.activation_out(a, name, parameters, out=out)
    assert equal_bits(compiled_formulas("activation_out", name, parameters, [], [a])[0], out)
    for gamma in (1e-3, 0.7, 50.0):
        prox = getattr(ops, f"prox_{name}")
        extra = [parameters] if name == "polynomial" else parameters
        assert equal_bits(
            compiled_formulas("prox_activation", name, parameters, [gamma], [a, b])[0], prox(a, b, gamma, *extra)
        )
    if name not in JUMPS:
        found = compiled_formulas("activation_slopes", name, parameters, [], [a], 2)
        for mine, its in zip(found, ops.activation_slopes(a, name, parameters), strict=True):
            assert equal_bits(mine, its)
    if name not in WITHOUT_PREIMAGES:
        parameters = [0.0, 1.0, 0.3, 0.05] if name == "polynomial" else parameters
        found = compiled_formulas("preimage_projection", name, parameters, [0.1], [a, b, c])
        assert equal_bits(found[0], ops.preimage_projection(a, b, c, name, parameters, 0.1))
        found = compiled_formulas("joint_state_update", name, parameters, [0.6, 0.1], [a, b], 2)
        for mine, its in zip(found, ops.joint_state_update(a, b, name, parameters, 0.6, 0.1), strict=True):
            assert equal_bits(mine, its)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loss_and_regularizer_formulas_to_the_bit(compiled_formulas, dtype):
    ops = torch.ops.torchbcd
    y, b = spread(dtype, 2)
    of_their_own = {"binary_cross_entropy": (y > 0).to(dtype), "poisson": y.abs()}
    for name in ("squared", "hinge", "logistic", "exponential", "huber", "quantile", *of_their_own):
        target = of_their_own.get(name, y if name in ("squared", "quantile") else y.sign())
        for gamma in (1e-3, 0.7, 50.0):
            found = compiled_formulas("prox_loss", name, [], [gamma], [target, b])[0]
            assert equal_bits(found, getattr(ops, f"prox_{name}_loss")(target, b, gamma)), name
        found = compiled_formulas("loss_subdifferential", name, [], [], [target, b], 2)
        for mine, its in zip(found, ops.loss_subdifferential(target, b, name, 0.0)[:2], strict=True):
            assert equal_bits(mine, its), name
    targets = {"cross_entropy": torch.softmax(y.clamp(-20, 20), 1), "row_hinge": y.sign()}
    for name, target in targets.items():
        found = compiled_formulas("prox_of_rows", name, [], [0.3, 5], [target, b])[0]
        its = getattr(ops, f"prox_{name}_loss")(target, b, 0.3)
        if name == "cross_entropy":  # whose classes the CPU takes in vectors, by other steps to the same root
            unit = torch.finfo(dtype).eps
            torch.testing.assert_close(found, its, rtol=4 * unit, atol=4 * unit, msg=name)
        else:
            assert equal_bits(found, its), name
        low, _, segment = ops.loss_subdifferential(target, b, name, 0.01)
        first, second = (
            compiled_formulas("row_subgradient", name, [], [0.01, end, 5], [target, b])[0] for end in (0.0, 1.0)
        )
        assert equal_bits(first, low), name
        assert equal_bits(second - first, segment), name
    found = compiled_formulas("prox_elastic_net", "", [], [0.4, 0.2], [b])[0]
    assert equal_bits(found, ops.prox_elastic_net(b, 0.4, 0.2))
    found = compiled_formulas("regularizer_subdifferential", "", [], [0.4, 0.2], [b], 2)
    for mine, its in zip(found, ops.regularizer_subdifferential(b, 0.4, 0.2, -1.0, 1.0), strict=True):
        assert equal_bits(mine, its)
