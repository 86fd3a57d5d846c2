r"""Estimators of scikit-learn's kind that :class:`torchbcd.RelaxedBCD` trains.

:class:`MLPClassifier` and :class:`MLPRegressor` have the arguments, attributes and habits of the classes of
these names in ``sklearn.neural_network``, and go wherever those go: pipelines, searches, cross-validation,
pickle. What differs:

* There is no solver, learning rate or momentum to choose. ``alpha`` and ``max_iter`` are None by default,
  which is a rule by the number of rows. A fit runs all of its epochs unless ``early_stopping`` ends it: its
  steps become smaller towards the end, so that the training loss says nothing about when to stop.
* The columns of X, and of a regression's y, are standardised inside; ``coefs_`` and ``intercepts_`` have that
  folded in, so that they take X as it is.
* ``alpha`` is a decoupled weight decay, not scikit-learn's penalty.
* A row of ``sample_weight`` 2 is two rows, one of 0 is none, in everything but what goes by how many rows
  there are: batches, epochs, the rule of ``alpha``, the part held back. With all rows in a batch the two are the
  same up to rounding: float32's, or, of up to 100 rows in float64, float64's.
* Training is in float32 (up to 100 rows of float64: in float64), prediction in float64. Sparse X is made dense
  for training, and stays sparse in prediction.

This module needs scikit-learn, 1.6 or later; the rest of the package does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

try:
    from sklearn.utils.validation import validate_data as _  # noqa: F401  (1.6 brought it)
except ImportError as error:
    raise ImportError(
        f"torchbcd.sklearn needs scikit-learn 1.6 or later: pip install 'scikit-learn>=1.6' ({error})"
    ) from error

import numpy as np
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels

from torchbcd import _estimators as core
from torchbcd._sklearn_mlp import MLP, Array, Targets

__all__ = ["MLPClassifier", "MLPRegressor"]


class MLPClassifier(ClassifierMixin, MLP):  # type: ignore[misc]
    r"""An MLP for two classes, several, or several labels a row, trained by :class:`torchbcd.RelaxedBCD`.

    Args:
        hidden_layer_sizes: Widths of the hidden layers; ``()`` for none.
        activation: Of the hidden layers: "relu", "tanh", "logistic" or "identity".
        loss: "squared_error", of one-hot targets, whose outputs v become the logits :math:`k v` afterwards: k,
            at most 10, is the likeliest for the rows that were trained on, or for those held back by
            ``early_stopping``. Or "log_loss", which takes 1.3 to 2.6 times as long and is seldom
            better (docs/results/sklearn.md).
        alpha: The part of the hidden layers' weights that is taken off before each step, in [0, 1). None:
            :math:`\min(0.004, \max(d, 0.75\, m / n^{3/2}))` with m rows in a batch, n in all, and d = 2 / steps,
            but at least 0.0001 and at most 0.001.
        batch_size: Rows of a step, at most all of them. "auto": 100 or a little fewer, in batches of one size.
        max_iter: Epochs, which are all run unless ``early_stopping`` ends them. None: 20; more where those
            would be fewer than 60 steps, fewer (but five) where they would be more than 6,400.
        standardize: Train on columns of mean 0 and standard deviation 1.
        random_state: Seed of initialisation, shuffles and split; as scikit-learn has it. PyTorch's global
            generator is neither used nor moved.
        tol: What the loss of the held rows has to fall by, to go on with ``early_stopping``.
        verbose: Print each epoch's loss.
        warm_start: Have ``fit`` go on from where the last call ended.
        early_stopping: Hold rows back; stop when their loss has not fallen for ``n_iter_no_change`` epochs, and
            return to the epoch at which it was lowest. The loss, since an accuracy over few rows says little.
        validation_fraction: The part of the rows to hold back.
        n_iter_no_change: See ``early_stopping``.

    Attributes:
        classes_: The classes in order; for labels 0, 1, ...
        coefs_: Weights, shape (inputs, outputs), for X as it is: ``predict`` goes by these and ``intercepts_``.
        intercepts_: Biases.
        model_: A new ``nn.Sequential`` of them, in float64, which returns logits.
        loss_, loss_curve_: Mean over an epoch's rows of the loss before their step; of the last epoch, and of
            all.
        best_loss_: The lowest of them; None with ``early_stopping``.
        validation_scores_, best_validation_score_: Accuracies of the held rows, and that of the epoch that was
            kept; None without ``early_stopping``.
        n_iter_: Epochs of the last call.
        t_: Rows seen in all.
        n_features_in_, feature_names_in_: As scikit-learn has them.
        n_layers_, n_outputs_, out_activation_: As ``sklearn.neural_network.MLPClassifier`` has them: two
            classes have one output.

    Example:
        >>> from sklearn.datasets import load_wine
        >>> from sklearn.model_selection import cross_val_score
        >>> x, y = load_wine(return_X_y=True)
        >>> scores = cross_val_score(MLPClassifier(random_state=0), x, y)
        >>> bool(scores.mean() > 0.95)
        True
    """

    _losses = ("squared_error", "log_loss")
    _damping = 1.1

    def _encode(self, y: Targets, weight: Array | None, first: bool, incremental: bool) -> Targets:
        check_classification_targets(y)
        found = unique_labels(y)
        if first and not incremental:
            self._know(y)
        elif self.warm_start and not incremental and not np.array_equal(found, self.classes_):
            raise ValueError(
                f"warm_start needs the classes of the call before in y, {self.classes_} (got {found})"
            )
        if len(np.setdiff1d(found, self.classes_)):
            raise ValueError(f"`y` has classes not in `self.classes_`, {self.classes_} (got {found})")
        if (y.ndim == 2) != self._labels:
            raise ValueError(f"y must have {'rows of labels' if self._labels else 'one class a row'}, as before")
        return y.astype(np.float32) if self._labels else np.searchsorted(self.classes_, y)

    def _know(self, y: Any) -> None:
        """Set classes_."""
        self._labels = type_of_target(y).startswith("multilabel")
        self.classes_ = unique_labels(y)
        self.n_outputs_ = len(self.classes_) if self._labels or len(self.classes_) > 2 else 1
        self.out_activation_ = "logistic" if self._labels or len(self.classes_) <= 2 else "softmax"

    def _problem(self, targets: Targets) -> tuple[str, Tensor, int]:
        # Two classes are two outputs in training, of which the difference is the logit.
        if not self._labels:
            name = "squared" if self.loss == "squared_error" else "cross_entropy"
            return name, torch.from_numpy(targets), max(2, len(self.classes_))
        if self.loss == "squared_error":
            return "squared", torch.from_numpy(targets), self.n_outputs_
        return "logistic", torch.from_numpy(2 * targets - 1), self.n_outputs_

    def _judge(self, targets: Targets, outputs: Array, weight: Array | None) -> tuple[float, float]:
        truth = targets if self._labels else np.eye(outputs.shape[1])[targets]
        if self._labels:
            right = ((outputs > (0.5 if self.loss == "squared_error" else 0.0)) == (truth > 0.5)).all(1)
        else:
            right = outputs.argmax(1) == targets
        if self.loss == "squared_error":
            misfit = np.square(outputs - truth)
        elif self._labels:
            misfit = -log_expit((2 * truth - 1) * outputs)
        else:
            misfit = -truth * log_softmax(outputs, axis=1)
        return float(np.average(misfit.sum(1), weights=weight)), float(np.average(right, weights=weight))

    def _output_map(self, targets: Targets, outputs: Array, weight: Array | None) -> tuple[Array, Array]:
        k = core.sharpness(outputs, targets, weight) if self.loss == "squared_error" else 1.0
        if not self._labels and self.n_outputs_ == 1:
            return k * np.array([[-1.0], [1.0]]), np.zeros(1)
        if self._labels and self.loss == "squared_error":
            return 2 * k * np.eye(self.n_outputs_), np.full(self.n_outputs_, -k)
        return k * np.eye(self.n_outputs_), np.zeros(self.n_outputs_)

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPClassifier:
        """Train on X and y.

        Args:
            X: Array, data frame or sparse matrix, shape (n, n_features).
            y: Classes, shape (n,), or labels of 0 and 1, shape (n, n_labels).
            sample_weight: What each row counts, >= 0, shape (n,). None: 1.

        Returns:
            The estimator.

        Raises:
            ValueError: An argument is out of its range, or X or y are not what they must be.
        """
        self._fit(X, y, sample_weight)
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> MLPClassifier:
        """Train on X and y for one epoch, from where the last call ended.

        The first call's X sets the scaling. Steps do not become smaller, and weights are averaged over one
        call alone, as nobody knows how many calls are to come: one ``fit`` of as many epochs is better.

        Args:
            X: As for :meth:`fit`.
            y: As for :meth:`fit`; it need not have all classes.
            classes: All classes that any call's y has. Needed in the first call.
            sample_weight: As for :meth:`fit`.

        Returns:
            The estimator.

        Raises:
            ValueError: As for :meth:`fit`; or classes are missing, or others than before.
        """
        if not hasattr(self, "classes_"):
            if classes is None:
                raise ValueError("classes must be passed on the first call to partial_fit.")
            self._know(y if type_of_target(y).startswith("multilabel") else np.asarray(classes))
        elif classes is not None and not np.array_equal(unique_labels(classes), self.classes_):
            raise ValueError(f"`classes` must be those of the call before, {self.classes_} (got {classes!r})")
        self._fit(X, y, sample_weight, incremental=True)
        return self

    def decision_function(self, X: Any) -> Array:
        """Logits.

        Args:
            X: As for :meth:`fit`.

        Returns:
            Shape (n,) for two classes, positive for the second one; else (n, n_classes) or (n, n_labels).
        """
        logits = self._forward(X)
        return logits if self._labels or self.n_outputs_ > 1 else logits.ravel()

    def predict(self, X: Any) -> Targets:
        """The likeliest class of every row, or its labels.

        Args:
            X: As for :meth:`fit`.

        Returns:
            Shape (n,), or (n, n_labels).
        """
        logits = self._forward(X)
        if self._labels:
            return (logits > 0).astype(int)
        index = logits.argmax(1) if self.n_outputs_ > 1 else (logits[:, 0] > 0).astype(int)
        found: Targets = self.classes_[np.minimum(index, len(self.classes_) - 1)]
        return found

    def predict_proba(self, X: Any) -> Array:
        """Probabilities of the classes, in the order of ``classes_``, or of the labels.

        Args:
            X: As for :meth:`fit`.

        Returns:
            Shape (n, n_classes), or (n, n_labels).
        """
        return self._probabilities(X, expit, softmax)

    def predict_log_proba(self, X: Any) -> Array:
        """Logarithms of :meth:`predict_proba`, also where it is 0 in floating point.

        Args:
            X: As for :meth:`fit`.

        Returns:
            Shape (n, n_classes), or (n, n_labels).
        """
        return self._probabilities(X, log_expit, log_softmax)

    def _probabilities(self, X: Any, of_one: Callable[..., Array], of_all: Callable[..., Array]) -> Array:
        logits = self._forward(X)
        if self._labels:
            return of_one(logits)
        if self.n_outputs_ > 1:
            return of_all(logits, axis=1)
        if len(self.classes_) == 1:
            return of_one(np.full_like(logits, np.inf))
        return of_one(np.hstack([-logits, logits]))

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn should know."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class MLPRegressor(RegressorMixin, MLP):  # type: ignore[misc]
    r"""An MLP for one number a row, or several, trained by :class:`torchbcd.RelaxedBCD`.

    Args:
        hidden_layer_sizes: Widths of the hidden layers; ``()`` for none.
        activation: Of the hidden layers: "relu", "tanh", "logistic" or "identity".
        loss: "squared_error", or "huber", which changes from squares to absolute values at one standard
            deviation of y.
        alpha: The part of the hidden layers' weights that is taken off before each step, in [0, 1). None:
            :math:`\min(0.012, 0.75\, m / n^{3/2})` with m rows in a batch and n in all.
        batch_size: Rows of a step, at most all of them. "auto": 100 or a little fewer, in batches of one size.
        max_iter: Epochs, which are all run unless ``early_stopping`` ends them. None: 20; more where those
            would be fewer than 60 steps, fewer (but five) where they would be more than 6,400.
        standardize: Train on columns of mean 0 and standard deviation 1. y is standardised in any case.
        random_state: Seed of initialisation, shuffles and split; as scikit-learn has it. PyTorch's global
            generator is neither used nor moved.
        tol: What :math:`R^2` of the held rows has to rise by, to go on with ``early_stopping``.
        verbose: Print each epoch's loss.
        warm_start: Have ``fit`` go on from where the last call ended.
        early_stopping: Hold rows back; stop when their :math:`R^2` has not risen for ``n_iter_no_change``
            epochs, and return to the epoch at which it was highest.
        validation_fraction: The part of the rows to hold back.
        n_iter_no_change: See ``early_stopping``.

    Attributes:
        coefs_: Weights, shape (inputs, outputs), for X and y as they are: ``predict`` goes by these and
            ``intercepts_``.
        intercepts_: Biases.
        model_: A new ``nn.Sequential`` of them, in float64.
        loss_, loss_curve_: Mean over an epoch's rows of the loss before their step, for a y of standard
            deviation 1; of the last epoch, and of all.
        best_loss_: The lowest of them; None with ``early_stopping``.
        validation_scores_, best_validation_score_: :math:`R^2` of the held rows, and that of the epoch that
            was kept; None without ``early_stopping``.
        n_iter_: Epochs of the last call.
        t_: Rows seen in all.
        n_features_in_, feature_names_in_: As scikit-learn has them.
        n_layers_, n_outputs_, out_activation_: As ``sklearn.neural_network.MLPRegressor`` has them.

    Example:
        >>> from sklearn.datasets import make_friedman1
        >>> x, y = make_friedman1(600, noise=1.0, random_state=0)
        >>> regressor = MLPRegressor(random_state=0).fit(x[:400], y[:400])
        >>> regressor.score(x[400:], y[400:]) > 0.8
        True
    """

    _losses = ("squared_error", "huber")
    _damping = 0.3

    def _encode(self, y: Targets, weight: Array | None, first: bool, incremental: bool) -> Targets:
        columns = y.astype(np.float64).reshape(len(y), -1)
        if first:
            self.n_outputs_ = columns.shape[1]
            self.out_activation_ = "identity"
            counts = slice(None) if weight is None else weight > 0
            self._target_scaling = core.Scaling.of(columns[counts], None if weight is None else weight[counts])
        elif columns.shape[1] != self.n_outputs_:
            raise ValueError(f"y must have {self.n_outputs_} columns, as before (got {columns.shape[1]})")
        return self._target_scaling.apply(columns)

    def _problem(self, targets: Targets) -> tuple[str, Tensor, int]:
        name = "squared" if self.loss == "squared_error" else "huber"
        return name, torch.from_numpy(targets), self.n_outputs_

    def _judge(self, targets: Targets, outputs: Array, weight: Array | None) -> tuple[float, float]:
        score = float(r2_score(targets, outputs, sample_weight=weight))
        return -score, score

    def _output_map(self, targets: Targets, outputs: Array, weight: Array | None) -> tuple[Array, Array]:
        return np.diag(self._target_scaling.scale), self._target_scaling.mean

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """Train on X and y.

        Args:
            X: Array, data frame or sparse matrix, shape (n, n_features).
            y: Numbers, shape (n,) or (n, n_outputs).
            sample_weight: What each row counts, >= 0, shape (n,). None: 1.

        Returns:
            The estimator.

        Raises:
            ValueError: An argument is out of its range, or X or y are not what they must be.
        """
        self._fit(X, y, sample_weight)
        return self

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """Train on X and y for one epoch, from where the last call ended.

        The first call's X and y set the scaling. Steps do not become smaller, and weights are averaged over
        one call alone, as nobody knows how many calls are to come: one ``fit`` of as many epochs is better.

        Args:
            X: As for :meth:`fit`.
            y: As for :meth:`fit`.
            sample_weight: As for :meth:`fit`.

        Returns:
            The estimator.

        Raises:
            ValueError: As for :meth:`fit`.
        """
        self._fit(X, y, sample_weight, incremental=True)
        return self

    def predict(self, X: Any) -> Array:
        """The numbers for every row.

        Args:
            X: As for :meth:`fit`.

        Returns:
            Shape (n,) for one output, else (n, n_outputs).
        """
        y = self._forward(X)
        return y.ravel() if self.n_outputs_ == 1 else y

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn should know."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
