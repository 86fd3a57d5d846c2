"""torchbcd.sklearn: scikit-learn's own checks of an estimator, and what its MLPs promise."""

from __future__ import annotations

import copy
import doctest
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn import datasets
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss, r2_score
from sklearn.model_selection import GridSearchCV, ShuffleSplit, cross_val_score, train_test_split
from sklearn.neural_network import MLPClassifier as TheirClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures
from sklearn.utils.estimator_checks import parametrize_with_checks

import torchbcd.sklearn
from torchbcd import _estimators as core
from torchbcd.sklearn import MLPClassifier, MLPRegressor

ESTIMATORS = [MLPClassifier, MLPRegressor]
pytestmark = pytest.mark.usefixtures("one_thread")  # which thread adds first would change the last bit
SMALL = {"hidden_layer_sizes": (20,), "random_state": 0}


def data(estimator, rows=240):
    """Inputs at odd scales with a constant column, and classes or numbers."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 5))
    y = x[:, 0] * x[:, 1] + x[:, 2] + 0.1 * rng.normal(size=rows)
    x = x * [1, 1e3, 1e-3, 1, 0] + [0, 1e4, 0, -50, 7]
    return x, np.array(["high", "low", "mean"])[
        np.digitize(y, [-1, 1])
    ] if estimator is MLPClassifier else 5e3 * y


def output(estimator, x):
    return estimator.predict_proba(x) if isinstance(estimator, MLPClassifier) else estimator.predict(x)


@parametrize_with_checks([MLPClassifier(), MLPRegressor(), MLPClassifier(loss="log_loss")])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_of_scikit_learn(estimator, check):
    check(estimator)


def test_scikit_learn_is_asked_for_only_here():
    program = """
import sys
import torchbcd
assert not {"sklearn", "scipy"} & set(sys.modules)
sys.modules["sklearn"] = None
try:
    import torchbcd.sklearn
except ImportError as error:
    assert "torchbcd.sklearn needs scikit-learn 1.6" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("cls", ESTIMATORS)
@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
def test_a_seed_says_everything(cls, activation):
    """And PyTorch's and NumPy's own generators are left alone."""
    x, y = data(cls)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    options = {**SMALL, "activation": activation, "early_stopping": True}
    first = cls(**options).fit(x, y)
    torch.manual_seed(5)
    torch_state = torch.get_rng_state()
    second = cls(**options).fit(x, y)
    assert np.array_equal(output(first, x), output(second, x))
    assert not np.array_equal(output(first, x), output(cls(**{**options, "random_state": 1}).fit(x, y), x))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_coefficients_take_inputs_as_they_are(cls):
    """So does model_, whatever the columns' scales."""
    x, y = data(cls)
    estimator = cls(hidden_layer_sizes=(20, 10), activation="tanh", random_state=0).fit(x, y)
    v = np.tanh(x @ estimator.coefs_[0] + estimator.intercepts_[0])
    v = np.tanh(v @ estimator.coefs_[1] + estimator.intercepts_[1])
    v = v @ estimator.coefs_[2] + estimator.intercepts_[2]
    with torch.no_grad():
        np.testing.assert_allclose(estimator.model_(torch.tensor(x)).numpy(), v, rtol=1e-9)
    v = v if cls is MLPClassifier else v[:, 0]
    found = estimator.decision_function(x) if cls is MLPClassifier else estimator.predict(x)
    np.testing.assert_allclose(found, v, rtol=1e-12)
    assert [c.shape for c in estimator.coefs_] == [(5, 20), (20, 10), (10, 3 if cls is MLPClassifier else 1)]
    assert estimator.n_layers_ == 4
    assert estimator.n_iter_ == len(estimator.loss_curve_) == 20
    assert estimator.t_ == 20 * 240
    assert estimator.loss_ == estimator.loss_curve_[-1] == estimator.best_loss_ < 0.5 * estimator.loss_curve_[0]


@pytest.mark.parametrize("cls", ESTIMATORS)
class TestSampleWeight:
    def test_zero_is_no_row_and_a_factor_is_nothing(self, cls):
        x, y = data(cls)
        counts = np.arange(len(x)) % 3 > 0
        weighted = cls(**SMALL).fit(x, y, sample_weight=0.3 * counts)
        left = cls(**SMALL).fit(x[counts], y[counts])
        assert np.array_equal(output(weighted, x), output(left, x))
        assert weighted.t_ == left.t_ == 160 * weighted.n_iter_

    def test_integers_are_repeated_rows(self, cls):
        """With all rows in a batch, to the rounding of float32."""
        x, y = data(cls)
        times = np.arange(len(x)) % 3
        options = {**SMALL, "batch_size": 1000, "max_iter": 20, "alpha": 0.004}
        weighted = cls(**options).fit(x, y, sample_weight=times)
        repeated = cls(**options).fit(x.repeat(times, 0), y.repeat(times))
        scale = np.ptp(output(repeated, x))
        np.testing.assert_allclose(output(weighted, x), output(repeated, x), atol=2e-3 * scale)
        np.testing.assert_allclose(weighted.loss_curve_, repeated.loss_curve_, rtol=1e-3)
        assert np.abs(output(cls(**options).fit(x, y), x) - output(weighted, x)).max() > 2e-2 * scale

    def test_in_what_is_held_back_and_in_partial_fit(self, cls):
        x, y = data(cls)
        weight = np.where(x[:, 0] > 0, 100.0, 0.01)
        options = {**SMALL, "early_stopping": True, "validation_fraction": 0.3, "max_iter": 5}
        estimator = cls(**options).fit(x, y, sample_weight=weight)
        heavy = x[:, 0] > 0
        assert estimator.score(x[heavy], y[heavy]) > cls(**options).fit(x, y).score(x[~heavy], y[~heavy]) - 0.2
        assert len(estimator.validation_scores_) == estimator.n_iter_
        first = {"classes": np.unique(y)} if cls is MLPClassifier else {}
        one = cls(**SMALL).partial_fit(x, y, sample_weight=heavy, **first)
        other = cls(**SMALL).partial_fit(x[heavy], y[heavy], **first)
        assert np.array_equal(output(one, x), output(other, x))

    def test_refusals(self, cls):
        x, y = data(cls, 20)
        for bad, message in (
            (-np.ones(20), "Negative values"),
            (np.zeros(20), "an entry > 0"),
            (np.ones(3), "shape"),
        ):
            with pytest.raises(ValueError, match=message):
                cls(**SMALL).fit(x, y, sample_weight=bad)


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_scale_and_offset_do_not_matter(cls):
    x, y = data(cls)
    plain = cls(**SMALL).fit(x, y)
    shifted = cls(**SMALL).fit(64 * x - 3, y)
    np.testing.assert_allclose(
        output(plain, x), output(shifted, 64 * x - 3), rtol=1e-2, atol=1e-2 * np.ptp(output(plain, x))
    )
    assert cls(standardize=False, **SMALL).fit(x, y)._scaling.scale.tolist() == [1.0] * 5


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_copies_go_on_bit_for_bit(cls):
    x, y = data(cls)
    estimator = cls(warm_start=True, **SMALL).fit(x, y)
    copies = [pickle.loads(pickle.dumps(estimator)), copy.deepcopy(estimator)]
    for each in (estimator, *copies):
        each.fit(x, y).partial_fit(x, y)
    for each in copies:
        assert np.array_equal(output(each, x), output(estimator, x))
    with pytest.raises(NotFittedError):
        clone(estimator).predict(x)
    assert not hasattr(clone(estimator), "model_")


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_warm_start_goes_on(cls):
    x, y = data(cls)
    estimator = cls(warm_start=True, max_iter=3, **SMALL)
    losses = [estimator.fit(x, y).loss_ for _ in range(5)]
    assert losses[-1] < 0.7 * losses[0]
    assert len(estimator.loss_curve_) == 15
    assert estimator.n_iter_ == 3
    with pytest.raises(ValueError, match="must be those of the call before"):
        estimator.set_params(hidden_layer_sizes=(21,)).fit(x, y)
    cold = cls(max_iter=3, **SMALL)
    assert cold.fit(x, y).fit(x, y).loss_curve_ == cold.fit(x, y).loss_curve_


def test_warm_start_and_partial_fit_know_the_classes():
    x, y = data(MLPClassifier)
    estimator = MLPClassifier(warm_start=True, **SMALL).fit(x, y)
    with pytest.raises(ValueError, match="warm_start needs the classes"):
        estimator.fit(x[y != "low"], y[y != "low"])
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        MLPClassifier().partial_fit(x, y)
    estimator = MLPClassifier(**SMALL)
    for _ in range(10):
        for name in ("high", "low", "mean"):  # a call has one class alone
            estimator.partial_fit(x[y == name][:20], y[y == name][:20], classes=["low", "mean", "high"])
    assert estimator.classes_.tolist() == ["high", "low", "mean"]
    with pytest.raises(ValueError, match="has classes not in"):
        estimator.partial_fit(x[:2], ["low", "other"])
    with pytest.raises(ValueError, match="must be those of the call before"):
        estimator.partial_fit(x, y, classes=["low", "high"])
    with pytest.raises(ValueError, match="does not support early_stopping"):
        MLPClassifier(early_stopping=True).partial_fit(x, y, classes=np.unique(y))


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_partial_fit_learns(cls):
    x, y = data(cls, 1200)
    estimator = cls(**SMALL)
    for _ in range(15):
        for part in np.array_split(np.arange(1000), 5):
            args = (x[part], y[part], np.unique(y)) if cls is MLPClassifier else (x[part], y[part])
            estimator.partial_fit(*args)
    assert estimator.n_iter_ == 1
    assert estimator.score(x[1000:], y[1000:]) > 0.85


@pytest.mark.parametrize("cls", ESTIMATORS)
@pytest.mark.parametrize("loss", [0, 1])
def test_early_stopping(cls, loss, capsys):
    x, y = data(cls)
    options = {"loss": cls._losses[loss], "max_iter": 300, "n_iter_no_change": 5, "verbose": True, **SMALL}
    estimator = cls(early_stopping=True, validation_fraction=0.25, **options).fit(x, y)
    scores = estimator.validation_scores_
    assert estimator.n_iter_ == len(scores) == len(estimator.loss_curve_) < 300
    assert estimator.best_validation_score_ in scores[-6:]
    if cls is MLPRegressor:
        assert estimator.best_validation_score_ == max(scores)
    assert estimator.best_loss_ is None
    assert estimator.score(x, y) > 0.75
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Iteration 1, loss = {estimator.loss_curve_[0]:.8f}"
    assert lines[-1] == f"Validation score: {scores[-1]:f}"
    patient = cls(early_stopping=True, **{**options, "max_iter": 12, "n_iter_no_change": np.inf}).fit(x, y)
    assert patient.n_iter_ == 12
    with pytest.raises(ValueError, match="validation_fraction must leave two rows"):
        cls(early_stopping=True, validation_fraction=0.001).fit(x, y)


@pytest.mark.parametrize("loss", ["squared_error", "log_loss"])
def test_two_classes_have_one_output(loss):
    x, y = datasets.load_breast_cancer(return_X_y=True)
    x, held, y, truth = train_test_split(x, y, random_state=0)
    estimator = MLPClassifier(loss=loss, random_state=0).fit(x, y)
    probabilities = estimator.predict_proba(held)
    assert estimator.decision_function(held).shape == (len(held),)
    assert (estimator.n_outputs_, estimator.out_activation_) == (1, "logistic")
    assert estimator.score(held, truth) > 0.95
    assert log_loss(truth, probabilities) < 0.15
    np.testing.assert_allclose(probabilities.sum(1), 1)
    np.testing.assert_allclose(np.log(probabilities), estimator.predict_log_proba(held), rtol=1e-9, atol=1e-12)
    assert estimator.predict(held).tolist() == probabilities.argmax(1).tolist()


def test_one_class_is_certain():
    estimator = MLPClassifier(**SMALL).fit(np.eye(5), ["only"] * 5)
    assert estimator.predict(np.eye(5)).tolist() == ["only"] * 5
    assert estimator.predict_proba(np.eye(5)).tolist() == [[1.0]] * 5
    assert estimator.predict_log_proba(np.eye(5)).tolist() == [[0.0]] * 5


@pytest.mark.parametrize("loss", ["squared_error", "log_loss"])
def test_several_labels(loss):
    x, y = datasets.make_multilabel_classification(600, 20, n_classes=4, random_state=0)
    estimator = MLPClassifier(loss=loss, random_state=0).fit(x[:400], y[:400])
    probabilities = estimator.predict_proba(x[400:])
    assert probabilities.shape == (200, 4)
    assert estimator.predict(x[400:]).tolist() == (probabilities > 0.5).astype(int).tolist()
    theirs = TheirClassifier(random_state=0, max_iter=60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.fit(x[:400], y[:400])
    assert estimator.score(x[400:], y[400:]) > theirs.score(x[400:], y[400:]) - 0.05
    np.testing.assert_allclose(np.exp(estimator.predict_log_proba(x)), estimator.predict_proba(x), rtol=1e-9)
    again = clone(estimator).fit(x[:400], sparse.csr_matrix(y[:400]))
    assert np.array_equal(again.predict_proba(x), estimator.predict_proba(x))
    assert clone(estimator).set_params(early_stopping=True).fit(x, y).best_validation_score_ > 0.4
    for _ in range(2):
        again.partial_fit(x, y)
    with pytest.raises(ValueError, match="y must have rows of labels"):
        again.partial_fit(x, y[:, 0] + y[:, 1])


@pytest.mark.parametrize("loss", ["squared_error", "huber"])
def test_several_numbers(loss):
    """Of scales that are far apart."""
    x, y = datasets.make_friedman1(500, noise=0.5, random_state=0)
    y = np.stack([y, 1e6 * x[:, 0] + 1e7, -1e-6 * y], 1)
    estimator = MLPRegressor(loss=loss, random_state=0).fit(x[:400], y[:400])
    assert estimator.predict(x).shape == (500, 3)
    assert (r2_score(y[400:], estimator.predict(x[400:]), multioutput="raw_values") > 0.8).all()
    with pytest.raises(ValueError, match="y must have 3 columns, as before"):
        estimator.partial_fit(x, y[:, 0])


@pytest.mark.parametrize("cls", ESTIMATORS)
@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_array, np.float32])
def test_sparse_and_float32_inputs(cls, kind):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 6)) * (rng.random((200, 6)) < 0.3)
    y = x[:, 0] + x[:, 1] if cls is MLPRegressor else x[:, 0] > 0
    x = x.astype(np.float32).astype(float)
    other = x.astype(kind) if kind is np.float32 else kind(x)
    plain = cls(**SMALL).fit(x, y)
    np.testing.assert_allclose(output(plain, other), output(plain, x), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(output(cls(**SMALL).fit(other, y), x), output(plain, x), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_no_hidden_layer_and_one_by_its_width(cls):
    x, y = data(cls)
    assert cls(hidden_layer_sizes=(), random_state=0).fit(x, y).n_layers_ == 2
    assert cls(hidden_layer_sizes=7, random_state=0).fit(x, y).coefs_[0].shape == (5, 7)


def test_pipelines_and_searches():
    x, y = datasets.load_iris(return_X_y=True)
    pipeline = make_pipeline(PolynomialFeatures(2), MLPClassifier(random_state=0))
    search = GridSearchCV(pipeline, {"mlpclassifier__alpha": [None, 0.001]}, cv=3).fit(x, y)
    assert search.best_score_ > 0.93
    alone = cross_val_score(MLPClassifier(random_state=0), x, y, cv=4)
    assert alone.mean() > 0.93
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of workers that stop
        np.testing.assert_allclose(
            cross_val_score(MLPClassifier(random_state=0), x, y, cv=4, n_jobs=2), alone, atol=0.03
        )


def test_data_frames():
    pandas = pytest.importorskip("pandas")
    x, y = datasets.load_iris(return_X_y=True, as_frame=True)
    estimator = MLPClassifier(**SMALL).fit(x, y)
    assert estimator.feature_names_in_.tolist() == list(x.columns)
    assert np.array_equal(
        estimator.predict(x), MLPClassifier(**SMALL).fit(x.to_numpy(), y.to_numpy()).predict(x.to_numpy())
    )
    with pytest.raises(ValueError, match="feature names"):
        estimator.predict(pandas.DataFrame(x.to_numpy(), columns=list("abcd")))


@pytest.mark.parametrize(
    ("name", "floor"),
    [("iris", 0.93), ("wine", 0.95), ("breast_cancer", 0.95), ("digits", 0.965), ("diabetes", 0.38)],
)
def test_scores_by_the_defaults(name, floor):
    """On inputs as they are, and as the sets come, without a number of one's own."""
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    estimator = MLPRegressor(random_state=0) if name == "diabetes" else MLPClassifier(random_state=0)
    assert cross_val_score(estimator, x, y, cv=ShuffleSplit(4, test_size=0.2, random_state=0)).mean() > floor


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_many_epochs_on_few_rows(cls):
    """Layers drift apart, by decay of the last one without end; weights from far apart have no useful mean."""
    x, y = datasets.load_diabetes(return_X_y=True)
    y = y if cls is MLPRegressor else y > 150
    estimator = cls(max_iter=300, random_state=0).fit(x[:300], y[:300])
    assert estimator.score(x[300:], y[300:]) > (0.35 if cls is MLPRegressor else 0.65)
    x, z = datasets.make_friedman1(300, noise=1.0, random_state=0)
    z = z if cls is MLPRegressor else z > z.mean()
    deep = cls((50, 50), max_iter=400, random_state=0).fit(x, z)
    x, z = datasets.make_friedman1(300, random_state=1)
    assert deep.score(x, z if cls is MLPRegressor else z > z.mean()) > 0.8
    hidden, last = (weights.norm().item() for weights in estimator._network.parameters() if weights.ndim == 2)
    assert 0.1 < hidden * last < 10


@pytest.mark.parametrize("cls", ESTIMATORS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "gelu"}, "activation must be one of"),
        ({"loss": "hinge"}, "loss must be one of"),
        ({"alpha": 1.0}, r"alpha must be None or a number in \[0, 1\)"),
        ({"batch_size": 0}, 'batch_size must be "auto" or a whole number >= 1'),
        ({"max_iter": 0.5}, "max_iter must be None or a whole number >= 1"),
        ({"tol": -1}, "tol must be a number >= 0"),
        ({"validation_fraction": 1.0}, "validation_fraction must be a number in"),
        ({"n_iter_no_change": 0}, "n_iter_no_change must be a whole number >= 1, or infinity"),
        ({"hidden_layer_sizes": (5, 0)}, "hidden_layer_sizes must be a whole number > 0"),
    ],
)
def test_arguments_out_of_range(cls, options, message):
    with pytest.raises(ValueError, match=message):
        cls(**options).fit(*data(cls))


def test_docstring_examples():
    results = doctest.testmod(torchbcd.sklearn)
    assert results.attempted > 0
    assert results.failed == 0


def test_epochs_and_batches_by_rows():
    for rows, epochs, size in [(90, 60, 90), (150, 30, 75), (1000, 20, 100), (60_000, 10, 100), (10**6, 5, 100)]:
        assert core.batch_size(rows, "auto") == size
        assert core.epochs(rows, size) == epochs
    assert core.batch_size(101, "auto") == 51  # no batch of one row
    for rows, decay in [
        (50, 0.004),
        (1600, 0.75 * 100 / 1600**1.5),
        (10_000, 1e-3),
        (60_000, 2 / 6000),
        (10**7, 1e-4),
    ]:
        size = core.batch_size(rows, "auto")
        assert core.weight_decay(rows, size, core.epochs(rows, size), classes=True) == pytest.approx(decay)
    assert core.weight_decay(60_000, 100, 10, classes=False) == pytest.approx(0.75 * 100 / 60_000**1.5)
    assert core.batch_size(50, 200) == 50
