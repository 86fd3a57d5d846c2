"""What targets mean: class indices of any integer dtype, signs, values; and what has no meaning is refused."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import make_data, make_mlp
from contracts import assert_identical
from tables import METHODS

import torchbcd

pytestmark = pytest.mark.usefixtures("one_thread")
every_method = pytest.mark.parametrize("method", METHODS)
SIGNS = ("hinge", "row_hinge", "logistic", "exponential")
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.bool)


def over(method, model, loss):
    return getattr(torchbcd, method)(model, loss)


def two_classes(dtype=torch.float64):
    x, _ = make_data(30, 6, 2, dtype=dtype)
    return x, x[:, 0] > 0


def weights_after(method, loss, x, y, *, outputs=1, way="step"):
    model = make_mlp([6, 5, outputs])
    optimizer = over(method, model, loss)
    if way == "step":
        optimizer.step(x, y)
    else:
        optimizer.bind(x, y)
        optimizer.step()
    return [p.detach() for p in model.parameters()]


@pytest.mark.parametrize("loss", SIGNS)
@every_method
class TestSigns:
    def test_two_classes_in_any_form(self, method, loss):
        x, y = two_classes()
        signs = 2 * y.to(x.dtype) - 1
        expected = weights_after(method, loss, x, signs[:, None])
        for given in (*(y.to(dtype) for dtype in INTEGERS), signs):
            assert_identical(weights_after(method, loss, x, given), expected)
            weights_after(method, loss, x, given, way="bind")

    def test_other_numbers(self, method, loss):
        x, y = two_classes()
        optimizer = over(method, make_mlp([6, 5, 1]), loss)
        for wrong, got in ((y.double(), 0), (y + 0.5, 0.5), (3.0 * y - 1, 2)):
            for way in (optimizer.step, optimizer.bind):
                with pytest.raises(ValueError, match=f"y must hold -1 and 1 for this loss.*got {got}"):
                    way(x, wrong.double()[:, None])


@every_method
class TestClasses:
    @pytest.mark.parametrize("dtype", INTEGERS[:-1], ids=str)
    def test_any_integer(self, method, dtype):
        x, y = make_data(30, 6, 3)
        for loss in ("squared", "cross_entropy"):
            expected = weights_after(method, loss, x, y, outputs=3)
            assert_identical(weights_after(method, loss, x, y.to(dtype), outputs=3), expected)

    def test_a_column(self, method):
        x, y = make_data(30, 6, 3)
        with pytest.raises(ValueError, match=r"must have shape .n,. = .30. .got .30, 1..; use squeeze"):
            over(method, make_mlp([6, 5, 3]), "squared").step(x, y[:, None])

    def test_one_output_of_a_softmax(self, method):
        with pytest.raises(ValueError, match="needs at least two outputs.*'logistic'"):
            over(method, make_mlp([6, 5, 1]), "cross_entropy")


@every_method
class TestValues:
    @pytest.mark.parametrize("loss", ["squared", "huber", "poisson", "quantile"])
    def test_integers_for_one_output(self, method, loss):
        x, y = make_data(30, 6, 3)
        optimizer = over(method, make_mlp([6, 5, 1]), loss)
        for way in (optimizer.step, optimizer.bind):
            with pytest.raises(ValueError, match=r"y holds integers.*y\[:, None\]\.float\(\)"):
                way(x, y)

    def test_a_row_of_numbers_for_one_output(self, method):
        x, _ = make_data(30, 6, 3)
        y = x[:, 0].sin()
        expected = weights_after(method, "squared", x, y[:, None])
        assert_identical(weights_after(method, "squared", x, y), expected)
        with pytest.raises(ValueError, match=r"y must have shape .n, 3. .got .30."):
            over(method, make_mlp([6, 5, 3]), "squared").step(x, y)

    def test_arrays_and_pairs(self, method):
        x, y = make_data(30, 6, 3)
        optimizer = over(method, make_mlp([6, 5, 3]), "squared")
        with pytest.raises(TypeError, match=r"x must be a torch.Tensor .got ndarray.; use torch.from_numpy"):
            optimizer.step(x.numpy(), y.numpy())
        with pytest.raises(
            TypeError, match=r"must be a torch.Tensor .got tuple.; give inputs and targets as two"
        ):
            optimizer.step((x, y))


class TestFit:
    """RelaxedBCD.fit checks what its steps would, and its validation data, before the first of them."""

    @pytest.fixture
    def data(self):
        return make_data(30, 6, 3)

    def refused(self, error, match, *arguments, outputs=3, **options):
        model = make_mlp([6, 5, outputs])
        before = [p.detach().clone() for p in model.parameters()]
        with pytest.raises(error, match=match):
            torchbcd.RelaxedBCD(model).fit(*arguments, **options)
        assert_identical([p.detach() for p in model.parameters()], before)

    def test_data(self, data):
        x, y = data
        self.refused(ValueError, "y must have as many rows as x, 20", x[:20], y)
        self.refused(ValueError, "y must have as many rows as x, 30", x, y[:20])
        self.refused(ValueError, "x must have at least one row", x[:0], y[:0])
        self.refused(TypeError, "x must have the dtype of the model", x.float(), y)
        self.refused(ValueError, "classes from 0 to 2", x, y + 1)

    def test_validation_data(self, data):
        x, y = data
        for bad, error, match in (
            ((x, y[:20]), ValueError, "validation y must have as many rows"),
            ((x.float(), y), TypeError, "validation x must have the dtype"),
            ((x[:, :5], y), ValueError, "validation x must have shape"),
            ((x * math.nan, y), ValueError, "validation x must be finite"),
            ((x, y + 3), ValueError, "validation y must hold classes"),
        ):
            self.refused(error, match, x, y, validation=bad)

    def test_a_row_of_numbers(self, data):
        x, _ = data
        y = x[:, 0].sin()
        losses = [
            torchbcd.RelaxedBCD(make_mlp([6, 5, 1])).fit(
                x, y, 2, 10, validation=(x, targets), generator=torch.Generator().manual_seed(0)
            )
            for targets in (y, y[:, None])
        ]
        assert losses[0] == losses[1]

    def test_accuracy_of_two_classes_with_one_output(self, data):
        x, _ = data
        y = x[:, 0] > 0
        model = make_mlp([6, 5, 1])
        report = torchbcd.RelaxedBCD(model, "hinge").fit(x, y, 3, 10, validation=(x, y))[-1]
        assert report.validation_accuracy == ((model(x)[:, 0] > 0) == y).double().mean().item()
