"""The optimizer to train with: relaxed block coordinate descent on mini-batches, with a descent certificate."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn

from torchbcd import _C, arguments, distributed, losses, mini_batches
from torchbcd.arguments import Closure, PerLayer, PerLayerRegularizer, Targets
from torchbcd.bcd import Variables
from torchbcd.optimizer import SweepOptimizer
from torchbcd.preprocessing import first_linear, is_first_poorly_scaled
from torchbcd.reports import EpochReport, RelaxedReport

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["RelaxedBCD"]

_ROWS_MADE = 1024  # by modules before the layers, of a batch, to tell how inputs are scaled


class RelaxedBCD(SweepOptimizer[_C.RelaxedBCD]):
    r"""Trains an MLP by certified relaxed block coordinate descent, one mini-batch a step.

    A step sets :math:`U_l = V_{l-1} W_l^\top + 1 b_l^\top` and :math:`V_l = \sigma_l(U_l)` by a forward pass
    of the batch, where the lifted objective

    .. math::
        L = w \sum_{\text{rows}} \ell(V_N; Y) + \sum_{l=1}^N \rho_l \Big( \tfrac12
        \|U_l - V_{l-1} W_l^\top - 1 b_l^\top\|_F^2 + r_l(W_l) \Big) \quad \text{on } V_l = \sigma_l(U_l)

    is the batch's loss, and then goes through the blocks in the order of [Z], Algorithm 2: :math:`V_N, W_N`,
    then :math:`(U, V)_l, W_l` for :math:`l = N - 1, \dots, 1`. **No block raises L**, whatever the
    hyper-parameters:

    * the output moves to the target (squared loss), or to the loss's prox;
    * W and b go ``relaxation`` of the way to the ridge regression of their residual, exactly solved;
    * (U, V) goes ``over_relaxation`` times the exact line search along its steepest descent (or ``state_steps``
      conjugate gradient steps), and is checked.

    W_l is refit *before* the states it reads move: moved states carry the label, and a W fitted to them would
    learn to read it off. The penalties fall geometrically towards the input,
    :math:`\rho_{l-1} = \rho_l q \|W_l\|_F^2 / d_l`, so that early states are nearly free to move.
    docs/relaxed.md has the derivation, the proof and what the certificate does not cover: the loss of the
    *next* batch, or of this one after the forward pass that follows (``guard`` covers that).

    With ``sample_weight`` every sum over rows above, of the penalties too, is the weighted one: **a row of weight
    two is two rows, one of weight zero is none**, in weights, certificate and reports, up to rounding.

    Each param group carries ``lr``, 1 by default, a factor of its relaxation and weight decay: ordinary
    ``torch.optim.lr_scheduler`` objects drive it.

    Args:
        model: As for :class:`torchbcd.BCD`. With a loss other than "squared", no activation after the last
            Linear.
        loss: As for :class:`torchbcd.BCD`.
        relaxation: :math:`\nu` of the hidden layers' weights, in [0, 2); one number, or one for each layer,
            the last included.
        output_relaxation: That of the last layer, where ``relaxation`` is one number.
        growth: How many times a hidden layer's relaxation is that of the next one, >= 1, where ``relaxation`` is
            one number: that of the last hidden layer. None becomes larger than 1.5 by it, or than 1 with a
            regulariser that is not a squared norm. The layers outside of Residuals count as a net of their own;
            those of a branch begin with 0.22 of ``relaxation``, at its end.
        over_relaxation: :math:`\omega` of the states, in (0, 2), likewise. A layer's number is for the states
            it reads.
        damping: Proximal weight of W and b relative to the mean square of the layer's inputs, > 0, likewise.
            None: 1.1 where the targets are classes (indices, one-hot, or those of a loss of signs, a
            cross-entropy or Poisson's), 0.3 where they are numbers.
        penalty_ratio: :math:`q`, > 0, likewise.
        state_steps: Conjugate gradient steps of the states, >= 1, likewise.
        row_blocks: Solve for W on so many blocks of rows, >= 1, and take the average; move the states that the
            layer reads by one length, measured on a sample of the rows: likewise. More than 1 is cheaper, **not
            exact and not certified**: these steps may raise L, and their decreases are not measured (NaN).
        cap: The most that a batch's states move, relative to their norm (to first order), > 0, likewise; for
            very deep nets. Where it is one number, 0.6 of it in nets of more than eight Residuals. None: no cap.
            The flips of ``torchbcd.nn.Sign`` are not capped.
        momentum: The part of its last step that a layer's W and b go on before a sweep begins, in [0, 1),
            likewise. The certificate is for the blocks from there on. None: 0.7, or 0.5 for more than 12 Linear
            layers outside of Residuals; 0 with ``persistent``. What ``weight_regularizer`` constrains is
            projected back.
        weight_decay: The part of W, times ``lr``, that is taken off before a sweep begins, in [0, 1), likewise:
            decoupled, as AdamW's. Likewise before what the certificate is for. None: 2e-4 where the targets are
            classes, 1e-4 where they are numbers, more in :meth:`fit` on few rows; 0 for the last of several
            layers, where ``weight_regularizer`` penalises, and with ``persistent``.
        weight_regularizer: :math:`r_l`, an object of :mod:`torchbcd.regularizers`, or a list with one, or
            None, for each layer.
        lr: The factor of every relaxation and weight decay to start with.
        certificate: Evaluate ``report.certificate`` with every step, rather than when it is read.
        guard: Compare the batch's true loss before and after, and halve the step until it has not risen. One
            forward pass more, and one for each halving.
        persistent: Keep U, V and the penalties of bound data from sweep to sweep: no forward pass, and L
            never rises over the whole run ([Z], Theorem 2), at the price of a slower true loss.
        output_penalty: :math:`\rho_N` of losses other than "squared", > 0.
        loss_weight: :math:`w`, > 0, or "mean", 1 / n with n the rows of a step, or the sum of their weights. For
            the squared loss it scales L and changes nothing else.
        process_group: Processes of ``torch.distributed`` that have the rows of the data between them: each step
            is on all of their rows, and ends with the same weights in each, to the bit (docs/distributed.md).
            Needs ``row_blocks=1``.

    Raises:
        TypeError: ``model`` is not an ``nn.Sequential``, or an argument has the wrong type.
        ValueError: A module is not supported, or a number is out of range.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(256, 8)
        >>> y = (x[:, 0] * x[:, 1] > 0).long()
        >>> model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2))
        >>> optimizer = RelaxedBCD(model)
        >>> scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=20)
        >>> for epoch in range(20):
        ...     for rows in torch.randperm(256).split(32):
        ...         report = optimizer.step(x[rows], y[rows])
        ...     scheduler.step()
        >>> bool((model(x).argmax(1) == y).double().mean() > 0.95)
        True

        :meth:`fit` needs no loop of one's own, and no number:

        >>> model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2))
        >>> reports = RelaxedBCD(model).fit(x, y, epochs=40, validation=(x, y))
        >>> reports[-1].validation_accuracy > 0.9
        True

    Source:
        [Z], Algorithm 2 and Theorem 2, with the relaxations of docs/relaxed.md, which are not in the paper.
    """

    _object_class = _C.RelaxedBCD
    _scheduled = ("lr", "momentum")
    _copied = ("_certificate", "_scale_seen")

    def __init__(
        self,
        model: nn.Sequential,
        loss: str | losses.Loss = "squared",
        relaxation: PerLayer = 0.45,
        output_relaxation: float = 0.055,
        over_relaxation: PerLayer = 1.9,
        damping: PerLayer | None = None,
        penalty_ratio: PerLayer = 0.032,
        state_steps: int | Sequence[int] = 1,
        *,
        growth: float = 1.6,
        row_blocks: int | Sequence[int] = 1,
        cap: PerLayer | None = 0.25,
        momentum: PerLayer | None = None,
        weight_decay: PerLayer | None = None,
        weight_regularizer: PerLayerRegularizer = None,
        lr: float = 1.0,
        certificate: bool = False,
        guard: bool = False,
        persistent: bool = False,
        output_penalty: float = 1.0,
        loss_weight: float | str = 1.0,
        process_group: ProcessGroup | None = None,
    ) -> None:
        options = {
            "relaxation": relaxation,
            "output_relaxation": output_relaxation,
            "over_relaxation": over_relaxation,
            "damping": damping,
            "penalty_ratio": penalty_ratio,
            "state_steps": state_steps,
            "growth": growth,
            "row_blocks": row_blocks,
            "cap": cap,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "weight_regularizer": weight_regularizer,
            "lr": lr,
            "guard": guard,
            "persistent": persistent,
            "output_penalty": output_penalty,
        }
        super().__init__(model, loss, loss_weight, options, process_group)
        self._certificate = certificate
        self._scale_seen = False

    @classmethod
    def for_any_depth(
        cls, model: nn.Sequential, loss: str | losses.Loss = "squared", **options: Any
    ) -> RelaxedBCD:
        """An older setting for deep nets, which the defaults do not need any more.

        Two conjugate gradient steps, capped moves of the states and larger ones of the weights, no momentum and
        no decay, chosen on nets of 10 x 150 and 20 x 100. The class's defaults train those as well, in half to
        two thirds of the time (docs/relaxed.md).

        Args:
            model: As for the class.
            loss: As for the class.
            **options: Any other argument of the class, in place of this setting's.

        Example:
            >>> widths = [8] * 12
            >>> layers = [m for w in widths for m in (nn.Linear(w, w), nn.ReLU())]
            >>> optimizer = RelaxedBCD.for_any_depth(nn.Sequential(*layers[:-1]))
            >>> optimizer.param_groups[0]["state_steps"]
            2
        """
        return cls(model, loss, **{**_C.relaxed_options_for_any_depth(), **options})

    def bind(
        self,
        x: Tensor,
        y: Targets,
        sample_weight: Tensor | None = None,
        *,
        scratch_dir: str | os.PathLike[str] | None = None,
        resume: bool = False,
    ) -> None:
        """Keep a copy of a full batch for ``step()``.

        With ``scratch_dir`` the copies, and all else that is as large as they, are in files there, so that they
        may be larger than memory; x and y may be memory maps. The results are the same, to the bit. Every
        complete step is recorded in the folder, which a process that is killed, at any moment, leaves at its
        last one.

        Args:
            x: Inputs, shape (n, d_0), or (n, ...) where the model begins with ``nn.Flatten``.
            y: Targets, as for :meth:`torchbcd.BCD.bind`.
            sample_weight: What each row counts, >= 0, of the model's dtype, shape (n,), with a sum > 0. None: 1.
                Needs ``row_blocks=1``.
            scratch_dir: An existing folder with room for x, y and four arrays (n, d_i) for each layer, some of
                the widest one's size (four more for each layer where variables are ``persistent``), which no
                other optimizer uses (on the CPU, without ``process_group``). ``state_dict()`` and copies are
                refused then; the files stay when the optimizer goes. None: memory.
            resume: Where the folder holds a run of the same model, x, y and ``sample_weight``, go on with it: the
                model's weights, their momentum, persistent variables and the count of steps become those of its
                last complete step. Options are the optimizer's own. Where it holds none, begin one. False: a
                folder with a run in it is refused.

        Raises:
            TypeError: A dtype is not the model's.
            ValueError: A shape does not fit, an entry is NaN or infinite, a class or a weight is out of range,
                or a device is not the model's; or ``scratch_dir`` is no folder to write in, is in use, or holds
                another run.
            RuntimeError: The disk has no room; nothing has changed.

        Example:
            >>> import copy
            >>> x, y = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 1, 1, 0])
            >>> times = torch.tensor([2, 1, 0, 3])
            >>> model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).double()
            >>> twin = copy.deepcopy(model)
            >>> weighted, repeated = RelaxedBCD(model), RelaxedBCD(twin)
            >>> weighted.bind(x, y, sample_weight=times.double())
            >>> repeated.bind(x.repeat_interleave(times, 0), y.repeat_interleave(times))
            >>> abs(weighted.step().objective - repeated.step().objective) < 1e-10
            True
            >>> torch.allclose(model[0].weight, twin[0].weight)
            True
        """
        with self._refused_by_all():
            weight = arguments.optional_tensor("sample_weight", sample_weight)
            folder = arguments.folder("scratch_dir", scratch_dir)
            data = arguments.tensor("x", x), self._targets("y", y)
            library = self._push()
        library.bind(*data, weight, folder, bool(resume))
        self._warn_of_scale(x, stacklevel=3)

    # The base class declares step(closure) alone; a data-taking step is what a block method needs.
    def step(  # type: ignore[override]
        self,
        inputs: Tensor | Closure | None = None,
        targets: Targets | None = None,
        *,
        sample_weight: Tensor | None = None,
        closure: Closure | None = None,
    ) -> RelaxedReport:
        """Run one sweep over a mini-batch, or over the bound data.

        Args:
            inputs: Inputs of a mini-batch, shaped as in :meth:`bind`; or a closure that returns
                ``(inputs, targets)``; or None for the bound data.
            targets: Targets of the mini-batch, as in :meth:`bind`.
            sample_weight: What each row of the mini-batch counts, as in :meth:`bind`, which is where bound rows
                get theirs.
            closure: The same by keyword, as other optimizers take it: returns ``(inputs, targets)``, or None for
                what the other arguments say. One that returns a loss is refused.

        Returns:
            A report on the sweep, whose values are computed when read.

        Raises:
            TypeError: A dtype is not the model's.
            ValueError: As for :meth:`bind`; or a number of a param group, times ``lr``, is out of range; or
                nothing is bound where data are needed.
            torch.linalg.LinAlgError: A block has no solution in floating point; the message names layer and
                block.
        """
        with self._refused_by_all():
            batch = arguments.batch(inputs, targets, closure, self._targets)
            weight = arguments.optional_tensor("sample_weight", sample_weight)
            if weight is not None and batch is None:
                raise ValueError("the sample_weight of bound rows is given to bind (got one in step)")
            library = self._push()
        if batch is not None:
            self._warn_of_scale(batch[0], stacklevel=4)  # torch wraps step
        raw = library.step() if batch is None else library.step_batch(*batch, weight)
        report = RelaxedReport(library.sweeps, raw)
        if self._certificate:
            _ = report.certificate
        return report

    def fit(
        self,
        x: Tensor | Iterable[Sequence[Any]],
        y: Targets | None = None,
        epochs: int = 5,
        batch_size: int = 100,
        *,
        sample_weight: Tensor | None = None,
        validation: tuple[Tensor, Targets] | Callable[[nn.Module], float] | None = None,
        patience: int | None = None,
        tol: float = 0.0,
        decay: bool = True,
        hold: float = 0.5,
        average: float | Literal["auto"] | None = "auto",
        noise: float = 0.0,
        standardize: bool | None = None,
        generator: torch.Generator | None = None,
        callback: Callable[[EpochReport], object] | None = None,
    ) -> list[EpochReport]:
        r"""Train on shuffled mini-batches, for those who have no loop of their own.

        Where ``weight_decay`` is None it is :math:`\min(0.012, \max(d, 0.75\, m / n^{3/2}))` here, with m rows
        in a batch, n in all, and d what the class has: more on few rows, which a net would over-fit. For the last
        of several layers it is at most 1 / steps. docs/relaxed.md has what each default bought.

        Args:
            x: Inputs, shape (n, d_0), or (n, ...) where the model begins with ``nn.Flatten``. Or, without y,
                batches: a ``DataLoader``, or anything with a length that gives pairs of inputs and targets anew
                for every epoch. One is in memory at a time, once the first 10,000 rows have been looked at,
                which alone decide about ``standardize``. They come as they are: shuffling is the loader's, and
                ``batch_size`` is not used.
            y: Targets, as for :meth:`bind`.
            epochs: Passes over the data, >= 1.
            batch_size: Rows of a step, >= 1.
            sample_weight: What each row counts in its step, as for :meth:`bind`. Rows of weight zero are left out
                from the start; batches, ``average`` and ``weight_decay`` go by the number of the others. Only
                with all rows in a batch is a row of weight two the same as two.
            validation: Inputs and targets to measure each epoch on; or a function of the model as it is then
                (the average, where there is one) that returns a number to lower, such as a negative score.
            patience: Stop after this many epochs without a better validation loss, and restore the best
                weights. None: run all epochs.
            tol: What a validation loss has to be lower by, to be better to ``patience``.
            decay: Lower every ``lr`` linearly, step by step, from what it is to 0; restored at the end.
            hold: Part of the run, in [0, 1), before ``lr`` begins to fall.
            average: Decay of an exponential moving average of the weights, in (0, 1), such as 0.98, which the
                model holds at the end and at each validation. "auto": 1 - 10 / steps, of 20 epochs at most, and
                none where that is no more than ten, or where a regulariser has norms, whose zeros an average
                has not. None: no average.
            noise: Standard deviation of Gaussian noise added to every batch's inputs.
            standardize: Whether to begin with :func:`torchbcd.standardize_`. None: where x is poorly scaled and
                the model is not trained: no sweep yet, and a loss no better than that of the best constant
                output. It warns then, since the first layer's weights change.
            generator: Of the shuffles of rows and the noise. None: PyTorch's global one.
            callback: Called with each epoch's report.

        Returns:
            The reports.

        Raises:
            ValueError: As for :meth:`step`; or a number is out of range.
        """
        with distributed.same_everywhere(self._process_group, "fit cannot begin") as described:
            if arguments.whole("epochs", epochs) < 1 or arguments.whole("batch_size", batch_size) < 1:
                raise ValueError(f"epochs and batch_size must be at least 1 (got {epochs} and {batch_size})")
            if not 0 <= hold < 1:
                raise ValueError(f"hold must be in [0, 1) (got {hold})")
            if isinstance(average, str) and average != "auto":
                raise ValueError(f'average must be a number, "auto" or None (got {average!r})')
            if not (average is None or average == "auto" or 0 < average < 1):
                raise ValueError(f"average must be in (0, 1) or None (got {average})")
            if patience is not None and validation is None:
                raise ValueError("patience needs validation data")
            if not tol >= 0:
                raise ValueError(f"tol must be at least 0 (got {tol})")
            described.update(
                epochs=epochs, patience=patience, tol=tol, decay=decay, hold=hold, average=average, noise=noise
            )
        settings = mini_batches.Settings(
            epochs, batch_size, patience, tol, decay, hold, average, noise, standardize, generator, callback
        )
        if y is None and not isinstance(x, Tensor):
            if sample_weight is not None:
                raise ValueError("sample_weight is of rows, fit(x, y); batches have none (got one)")
            return mini_batches.fit_loader(self, x, validation, settings)
        return mini_batches.fit(self, cast("Tensor", x), cast("Targets", y), sample_weight, validation, settings)

    @torch.no_grad()
    def _warn_of_scale(self, x: Tensor, stacklevel: int) -> None:
        if self._object.sweeps == 0 and not self._scale_seen:
            with suppress(TypeError, ValueError):  # which the step itself reports
                self._scale_seen = True
                most = mini_batches.ROWS_SEEN if self._model.frozen_first is None else _ROWS_MADE
                some = x[:: max(1, -(-len(x) // most))]  # evenly spaced
                if is_first_poorly_scaled(*first_linear(self._model, some)):
                    warnings.warn(
                        "x has a common offset, or columns far larger than others, which hide the rest of it "
                        "from the first layer; torchbcd.standardize_(model, x), before training, folds them "
                        "into it",
                        UserWarning,
                        stacklevel=stacklevel + 1,  # no_grad wraps this
                    )

    def objective(self) -> float:
        """L of the last sweep's rows at its variables, computed from them, accumulated in float64.

        Raises:
            ValueError: There is no sweep yet.
        """
        return super().objective()

    def variables(self) -> Variables:
        """Copies of the last sweep's split variables; called by an observer, as they are at that block.

        ``U[N - 1]`` is the target where the output is clamped to it (squared loss, no output activation).

        Raises:
            ValueError: There is no sweep yet.
        """
        return Variables(**cast("dict[str, list[Any]]", self._object.variables()))
