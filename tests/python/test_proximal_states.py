"""State regularisers of one's own: solved as the library's are, judged, and refused where nothing holds them."""

from __future__ import annotations

import copy
import pickle
from itertools import pairwise

import pytest
import torch
from conftest import make_data, make_mlp
from objectives import recomputed_objective
from proximal_terms import KNOWN, L1, LIES, OTHERS, SIMPLEX

import torchbcd
from torchbcd import regularizers as reg

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTHS = [6, 9, 4, 3]
ROWS = 50
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)


def bound(terms, dtype=torch.float64, loss="squared", **options):
    model = make_mlp(WIDTHS, hidden="tanh", dtype=dtype)
    optimizer = torchbcd.BCD(
        model, loss, **{"alpha": 0.3, "gamma": [0.7, 1.5, 1.0], "state_regularizer": terms, **options}
    )
    x, y = make_data(ROWS, WIDTHS[0], WIDTHS[-1], dtype=dtype)
    optimizer.bind(x, y)
    return model, optimizer, x, y


@DTYPES
@pytest.mark.parametrize("loss", ["squared", "cross_entropy", "huber", "logistic"])
@pytest.mark.parametrize("name", KNOWN)
def test_as_the_one_that_the_library_knows(name, loss, dtype):
    """Hidden V and that of the output end where the library's own solvers do, with the same zeros."""
    own, known = KNOWN[name]
    mine, theirs = (bound(terms, dtype, loss) for terms in (own, known))
    for _ in range(3):
        mine[1].step()
        theirs[1].step()
    close = 1e-7 if dtype == torch.float64 else 1e-4
    for a, b in zip(mine[0].parameters(), theirs[0].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=close, atol=close)
    for a, b in zip(mine[1].variables().V, theirs[1].variables().V, strict=True):
        torch.testing.assert_close(a, b, rtol=close, atol=close)
        if dtype == torch.float64:
            assert torch.equal(a == 0, b == 0)
    assert mine[1].objective() == pytest.approx(theirs[1].objective(), rel=close)


@DTYPES
@pytest.mark.parametrize("options", [{}, {"order": "states_first", "inner_sweeps": 2}], ids=str)
@pytest.mark.parametrize("name", OTHERS)
def test_never_rises(name, options, dtype):
    """Also where s is not convex, couples rows, or is infinite at the forward pass; and reports are right."""
    terms = OTHERS[name]
    model, optimizer, _, y = bound(terms, dtype, **options)
    values = [optimizer.objective(), *(optimizer.step().objective for _ in range(9))]
    report = optimizer.step()
    values.append(report.objective)
    assert all(torch.isfinite(torch.tensor(values)))
    unit = torch.finfo(dtype).eps
    assert all(later <= earlier * (1 + 100 * unit) for earlier, later in pairwise(values))
    expected = recomputed_objective(optimizer, model, "squared", y, 3)
    assert values[-1] == pytest.approx(expected, rel=1e-5 if dtype == torch.float32 else 1e-10)
    if not options and name in ("nuclear", "simplex"):  # convex, as Lemma 5 wants s to be
        assert report.descent.holds(1e-9 if dtype == torch.float64 else 1e-3)
    states = optimizer.variables().V
    if name == "count":
        assert (states[1] == 0).any()
    if name == "simplex":
        torch.testing.assert_close(states[1].sum(1), torch.ones(ROWS, dtype=dtype))


@pytest.mark.parametrize("name", ["count", "mcp", "nuclear"])
def test_blocks_end_on_fixed_points(name):
    """V = prox(V - gradient / L, 1 / L) of both kinds of V block, L the largest curvature."""
    terms = OTHERS[name]
    _, optimizer, _, y = bound(terms, loss="cross_entropy")
    optimizer.step()
    before = optimizer.variables()
    optimizer.step()
    after = optimizer.variables()
    # V_3, whose block comes first: U_3 of before, a proximal term.
    v = after.V[3]
    gradient = v.softmax(1) - torch.nn.functional.one_hot(y, 3) + (v - before.U[2]) + 0.3 * (v - before.V[3])
    gradient += terms.l2 * v
    largest = 0.5 + 1 + 0.3 + terms.l2
    again = terms.proximal.prox(v - gradient / largest, 1 / largest)
    torch.testing.assert_close(again, v, rtol=0, atol=1e-7)
    # V_2: U_2 of before, U_3 and W_3 of after.
    v, w, b = after.V[2], after.W[2], after.b[2]
    gradient = 1.5 * (v - before.U[1].tanh()) - (after.U[2] - v @ w.t() - b) @ w + terms.l2 * v
    largest = 1.5 + torch.linalg.eigvalsh(w.t() @ w)[-1].item() + terms.l2
    again = terms.proximal.prox(v - gradient / largest, 1 / largest)
    torch.testing.assert_close(again, v, rtol=0, atol=1e-7)


def test_mini_batches_and_residuals():
    _, optimizer, x, y = bound([L1, OTHERS["nuclear"], None], loss_weight="mean")
    for part in (slice(0, 20), slice(20, 50)):
        report = optimizer.step(x[part], y[part])
        assert report.decrease >= 0
        assert report.descent.holds()
    torch.manual_seed(0)
    inner = [torch.nn.Linear(5, 7), torch.nn.ReLU(), torch.nn.Linear(7, 5)]
    model = torch.nn.Sequential(
        torch.nn.Linear(6, 5), torch.nn.Tanh(), torchbcd.nn.Residual(*inner), torch.nn.Linear(5, 3)
    ).double()
    mine, theirs = copy.deepcopy(model), copy.deepcopy(model)
    for net, terms in ((mine, L1), (theirs, reg.L1(0.4))):
        optimizer = torchbcd.BCD(net, alpha=0.3, state_regularizer=terms)
        optimizer.bind(x, y)
        for _ in range(3):
            optimizer.step()
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("layer", [1, 3])
@pytest.mark.parametrize("name", LIES)
def test_what_is_no_prox_changes_nothing(name, layer):
    """The step is refused, with layer and block; the next one, with an honest prox, is as if it had not been."""
    terms, error, message = LIES[name]
    model, optimizer, _, _ = bound(L1)
    optimizer.step()
    twin_model, twin = copy.deepcopy((model, optimizer))
    optimizer.param_groups[layer - 1]["state_regularizer"] = terms
    with pytest.raises(error, match=message) as raised:
        optimizer.step()
    if error is ValueError and name not in ("no number", "outside", "nan value"):
        assert f"torchbcd.BCD: layer {layer} of 3, V block: the " in str(raised.value)
    optimizer.param_groups[layer - 1]["state_regularizer"] = L1
    optimizer.step()
    twin.step()
    for mine, theirs in zip(model.parameters(), twin_model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert optimizer.objective() == twin.objective()


def test_states_have_the_name_alone(tmp_path):
    terms = [None, L1 + reg.L2(0.1), None]
    model, optimizer, _, _ = bound(terms, weight_regularizer=[L1, None, None])
    optimizer.step()
    assert optimizer.state_dict()["param_groups"][1]["state_regularizer"][1::3] == [0.1, "own l1"]
    torchbcd.save_checkpoint(tmp_path / "file.pt", model, optimizer)
    copies = [copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))]
    again = make_mlp(WIDTHS, hidden="tanh", seed=5)
    copies.append(torchbcd.BCD(again, state_regularizer=[None, L1, None], weight_regularizer=[L1, None, None]))
    torchbcd.load_checkpoint(tmp_path / "file.pt", again, copies[-1])
    optimizer.step()
    for other in copies:
        other.step()
        for mine, theirs in zip(optimizer.param_groups, other.param_groups, strict=True):
            assert mine["state_regularizer"] == theirs["state_regularizer"]
            assert all(torch.equal(a, b) for a, b in zip(mine["params"], theirs["params"], strict=True))
    with pytest.raises(ValueError, match="make the optimizer with the one named 'own l1' .*got None"):
        torchbcd.BCD(make_mlp(WIDTHS), weight_regularizer=[L1, None, None]).load_state_dict(
            optimizer.state_dict()
        )


def test_where_nothing_holds_it(group, tmp_path):
    model = make_mlp(WIDTHS)
    last = [None, None, L1]
    for options, message in (
        ({"splitting": 2}, "needs splitting 3, .* .got 'own l1' in layer 1"),
        (
            {"loss": "hinge", "state_regularizer": last},
            "in the last layer a loss with .* .got 'own l1' in layer 3",
        ),
        ({"state_regularizer": reg.MaxNorm(1.0)}, "must be a sum over entries, or one's own .layer 1 has"),
    ):
        with pytest.raises(ValueError, match=message):
            torchbcd.BCD(model, **{"state_regularizer": L1, **options})
    _, optimizer, x, y = bound([L1, None, None])
    (tmp_path / "run").mkdir()
    with pytest.raises(ValueError, match="needs data in memory"):
        optimizer.bind(x, y, scratch_dir=tmp_path / "run")
    with pytest.raises(
        ValueError, match=r"step\(index=...\) needs state_regularizers that are sums over entries .got 'own l1'"
    ):
        optimizer.step(index=torch.arange(5))
    with pytest.raises(ValueError, match="TorchScript and the steps that are functions cannot hold it"):
        optimizer.script_object()
    with pytest.raises(ValueError, match="subdifferential the library knows, .* .got 'own l1'"):
        _ = optimizer.step().stationarity
    with pytest.raises(ValueError, match="fit, which stops by .* .got 'own l1'"):
        optimizer.fit(x, y)
    _, simplex, x, y = bound([SIMPLEX, None, None])
    states = [torch.full((ROWS, d), 2.0).double() for d in WIDTHS[1:]]
    with pytest.raises(ValueError, match="v of layer 1 must lie .* or where one's own is finite"):
        simplex.bind(x, y, v=states)
    with pytest.raises(ValueError, match="a process_group needs state_regularizers that are the same"):
        torchbcd.BCD(model, state_regularizer=L1, process_group=group)
    optimizer = torchbcd.BCD(model, process_group=group)
    optimizer.param_groups[1]["state_regularizer"] = L1
    with pytest.raises(ValueError, match="which nothing tells of one's own .got 'own l1' in layer 2"):
        optimizer.step(x, y)
