"""What both estimators of torchbcd.sklearn have: their arguments, a fit, a forward pass."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.extmath import safe_sparse_dot
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor, nn

from torchbcd import _estimators as core
from torchbcd.relaxed import RelaxedBCD
from torchbcd.reports import EpochReport

Array: TypeAlias = NDArray[np.float64]
Targets: TypeAlias = NDArray[Any]
_ROWS_TO_CALIBRATE = 10_000
_SEEDS = 2**31 - 1


@torch.no_grad()
def outputs_of(network: nn.Module, x: Tensor) -> Array:
    """What the trained net says of standardised rows."""
    outputs: Array = network(x).double().numpy()
    return outputs


class MLP(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """What both estimators have."""

    _losses: tuple[str, ...]
    _made: tuple[list[int], str, str]  # of what the net was made
    _dtype: torch.dtype  # of training
    _damping: float

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        loss: str = "squared_error",
        alpha: float | None = None,
        batch_size: int | Literal["auto"] = "auto",
        max_iter: int | None = None,
        standardize: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: float = 10,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.loss = loss
        self.alpha = alpha
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.standardize = standardize
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change

    # What the two do differently.

    def _encode(self, y: Targets, weight: Array | None, first: bool, incremental: bool) -> Targets:
        """Class indices (n,), labels of 0 and 1 (n, labels), or standardised numbers (n, outputs)."""
        raise NotImplementedError

    def _problem(self, targets: Targets) -> tuple[str, Tensor, int]:
        """The library's loss, its targets, and how many outputs the trained net has."""
        raise NotImplementedError

    def _judge(self, targets: Targets, outputs: Array, weight: Array | None) -> tuple[float, float]:
        """Loss and score of the trained net's outputs."""
        raise NotImplementedError

    def _output_map(self, targets: Targets, outputs: Array, weight: Array | None) -> tuple[Array, Array]:
        """Matrix and offset that make logits, or y, of the trained net's outputs."""
        raise NotImplementedError

    # What they have in common.

    def _check_arguments(self) -> list[int]:
        """Raise where an argument makes no sense; the hidden layers' widths."""

        def must(fits: Any, name: str, what: str) -> None:
            if not fits:
                raise ValueError(f"{name} must be {what} (got {getattr(self, name)!r})")

        def whole(value: object) -> bool:
            return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1

        def within(value: object, low: float, high: float) -> bool:
            return isinstance(value, Real) and not isinstance(value, bool) and low <= float(value) < high

        activations, fraction = tuple(core.ACTIVATIONS), self.validation_fraction
        must(self.activation in activations, "activation", f"one of {activations}")
        must(self.loss in self._losses, "loss", f"one of {self._losses}")
        must(self.alpha is None or within(self.alpha, 0, 1), "alpha", "None or a number in [0, 1)")
        must(self.batch_size == "auto" or whole(self.batch_size), "batch_size", '"auto" or a whole number >= 1')
        must(self.max_iter is None or whole(self.max_iter), "max_iter", "None or a whole number >= 1")
        must(within(self.tol, 0, np.inf), "tol", "a number >= 0")
        must(within(fraction, 0, 1) and fraction > 0, "validation_fraction", "a number in (0, 1)")
        patience = self.n_iter_no_change
        must(whole(patience) or patience == np.inf, "n_iter_no_change", "a whole number >= 1, or infinity")
        sizes = self.hidden_layer_sizes
        widths = list(sizes) if np.iterable(sizes) else [sizes]
        must(all(map(whole, widths)), "hidden_layer_sizes", "a whole number > 0, or a sequence of them")
        return [int(width) for width in widths]

    def _fit(self, X: Any, y: Any, sample_weight: Any, incremental: bool = False) -> None:
        widths = self._check_arguments()
        if incremental and self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")
        made = widths, self.activation, self.loss
        first = not hasattr(self, "coefs_") or not (self.warm_start or incremental)
        if not first and made != self._made:
            raise ValueError(
                "hidden_layer_sizes, activation and loss must be those of the call before, to go on from there "
                f"(got {made} after {self._made})"
            )
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse=["csr", "csc"],
            multi_output=True,
            y_numeric=isinstance(self, RegressorMixin),
            dtype=(np.float64, np.float32),
            reset=first,
        )
        X = X.toarray() if issparse(X) else X
        y = y.toarray() if issparse(y) else y
        weight = None
        if sample_weight is not None:
            weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
            if not weight.any():
                raise ValueError("sample_weight must have an entry > 0")
        targets = self._encode(
            column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y, weight, first, incremental
        )
        if weight is not None:
            X, targets, weight = X[weight > 0], targets[weight > 0], weight[weight > 0]
            weight = None if np.ptp(weight) == 0 else weight / weight.mean()  # a common factor says nothing
        if first:
            self._dtype = torch.float32 if incremental else core.training_dtype(X)
            self._begin(X, targets, weight, widths)
            self._made = made
        X_held, held, weight_held = X, targets, weight
        if self.early_stopping:
            (X, X_held), (targets, held), (weight, weight_held) = self._split(X, targets, weight)
        x = torch.from_numpy(self._scaling.apply(X)).to(self._dtype)
        x_held = x
        if self.early_stopping:
            x_held = torch.from_numpy(self._scaling.apply(X_held)).to(self._dtype)
        self._train(x, targets, weight, (x_held, held, weight_held), incremental)
        some = slice(None, None, -(-len(held) // _ROWS_TO_CALIBRATE))
        matrix, offset = self._output_map(
            held[some],
            outputs_of(self._network, x_held[some]),
            None if weight_held is None else weight_held[some],
        )
        self.coefs_, self.intercepts_ = core.folded(self._network, self._scaling, matrix, offset)
        if not all(np.isfinite(values).all() for values in (*self.coefs_, *self.intercepts_)):
            raise ValueError(
                "training ended at weights that are not finite; X or y may have entries far too large"
            )

    def _begin(self, X: Array, targets: Targets, weight: Array | None, widths: list[int]) -> None:
        """A new net and optimizer, the scaling of X, and empty records."""
        self._random_state = check_random_state(self.random_state)
        seed, self._split_seed = (int(seed) for seed in self._random_state.randint(_SEEDS, size=2))
        self._scaling = core.Scaling.of(X, weight) if self.standardize else core.Scaling.none(X.shape[1])
        loss, _, outputs = self._problem(targets)
        generator = torch.Generator().manual_seed(seed)
        layers = [X.shape[1], *widths, outputs]
        self._network = core.make_network(layers, self.activation, generator, self._dtype)
        # 1 is RelaxedBCD's own, at which outputs move too slowly for good probabilities.
        penalty = 0.1 if loss in ("cross_entropy", "logistic") else 1.0
        self._optimizer = RelaxedBCD(self._network, loss, damping=self._damping, output_penalty=penalty)
        self.n_layers_ = len(widths) + 2
        self.t_ = 0
        self.loss_curve_: list[float] = []
        self.validation_scores_: list[float] | None = [] if self.early_stopping else None
        self.best_validation_score_: float | None = None

    def _split(self, X: Array, targets: Targets, weight: Array | None) -> Any:
        """Rows to train on and rows to stop by, of all classes where there are enough, in pairs."""
        rows = len(X)
        held = int(np.ceil(self.validation_fraction * rows))
        if min(held, rows - held) < 2:
            raise ValueError(
                f"validation_fraction must leave two rows or more to either part (got "
                f"{self.validation_fraction} of {rows} rows)"
            )
        stratify = None
        if targets.ndim == 1:
            counts = np.unique(targets, return_counts=True)[1]
            if counts.min() >= 2 and len(counts) <= min(held, rows - held):
                stratify = targets
        parts = train_test_split(
            *(X, targets) if weight is None else (X, targets, weight),
            test_size=held,
            random_state=self._split_seed,
            stratify=stratify,
        )
        return parts[:2], parts[2:4], parts[4:] or (None, None)

    def _train(
        self,
        x: Tensor,
        targets: Targets,
        weight: Array | None,
        held: tuple[Tensor, Targets, Array | None],
        incremental: bool,
    ) -> None:
        x_held, targets_held, weight_held = held
        rows = len(x)
        size = core.batch_size(rows, self.batch_size)
        epochs = 1 if incremental else self.max_iter or core.epochs(rows, size)
        decay = self.alpha
        if decay is None:
            known = None if incremental else epochs
            decay = core.weight_decay(rows, size, known, isinstance(self, ClassifierMixin))
        *hidden, last = self._optimizer.param_groups
        for group in hidden:
            group["weight_decay"] = decay
        last["weight_decay"] = 0.0  # as RelaxedBCD's default for it is
        misfits: list[float] = []
        scores: list[float] = []

        def validate(network: nn.Module) -> float:
            outputs = outputs_of(network, x_held)
            misfit, score = np.inf, -np.inf
            if np.isfinite(outputs).all():
                misfit, score = self._judge(targets_held, outputs, weight_held)
            misfits.append(misfit)
            scores.append(score)
            return misfit

        def tell(report: EpochReport) -> None:
            if self.verbose:
                print(f"Iteration {report.epoch}, loss = {report.loss:.8f}")
                if scores:
                    print(f"Validation score: {scores[-1]:f}")

        y = self._problem(targets)[1]
        reports = self._optimizer.fit(
            x,
            y.to(x.dtype) if y.is_floating_point() else y,
            epochs,
            size,
            sample_weight=None if weight is None else torch.from_numpy(weight).to(x.dtype),
            validation=validate if self.early_stopping else None,
            patience=int(min(epochs, self.n_iter_no_change)) if self.early_stopping else None,
            tol=self.tol,
            decay=not incremental,
            standardize=False,
            generator=torch.Generator().manual_seed(int(self._random_state.randint(_SEEDS))),
            callback=tell,
        )
        self.n_iter_ = len(reports)
        self.t_ += rows * self.n_iter_
        self.loss_curve_ += [report.loss for report in reports]
        self.loss_ = self.loss_curve_[-1]
        self.best_loss_ = None if self.early_stopping else min(self.loss_curve_)
        if self.early_stopping:
            self.validation_scores_ = [*(self.validation_scores_ or []), *scores]
            self.best_validation_score_ = scores[int(np.argmin(misfits))]

    def _forward(self, X: Any) -> Array:
        """Logits, or y."""
        check_is_fitted(self)
        state = validate_data(self, X, accept_sparse=["csr", "csc"], dtype=(np.float64, np.float32), reset=False)
        activation = core.ACTIVATIONS[self._made[1]][1]
        for layer, (coef, intercept) in enumerate(zip(self.coefs_, self.intercepts_, strict=True)):
            state = safe_sparse_dot(activation(state) if layer else state, coef) + intercept
        outputs: Array = state
        return outputs

    @property
    def model_(self) -> nn.Sequential:
        """A copy of the net in float64, which takes X as it is and returns logits, or y."""
        check_is_fitted(self)
        return core.unfolded(self.coefs_, self.intercepts_, self._made[1])

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn should know."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
