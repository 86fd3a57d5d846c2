"""What the optimizers share: the library's object behind param groups, state_dict, the observer, TorchScript."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import astuple
from math import nan
from operator import is_, itemgetter
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import nn

from torchbcd import _C, arguments, losses
from torchbcd.convert import Activation, read_model
from torchbcd.regularizers import Regularizer

__all__ = ["SweepOptimizer"]

ObjectT = TypeVar("ObjectT", bound="_C._Optimizer")


def _to_python(name: str, value: Any) -> Any:
    """An option of the library's for a param group: a regulariser for its four numbers."""
    return Regularizer(*value) if name.endswith("_regularizer") and value is not None else value


def _to_plain(value: Any) -> Any:
    """The reverse: what a state_dict holds."""
    return list(astuple(value)) if isinstance(value, Regularizer) else value


def _numbers(name: str, value: Any) -> list[float]:
    """An option of a layer as the TorchScript classes take it: NaN for None, four for a regulariser."""
    if name.endswith("_regularizer"):
        return list((value or Regularizer()).numbers)
    return [nan if value is None else float(value)]


class SweepOptimizer(torch.optim.Optimizer, Generic[ObjectT]):
    """An optimizer whose steps are sweeps of an object of the library over the layers of an MLP.

    The object holds options, data and state. ``param_groups``, one for each Linear, are filled from it, and what
    anyone has changed in them is told to it before each call.

    Args:
        model: The MLP.
        loss: Name or object of :mod:`torchbcd.losses`.
        loss_weight: A number > 0, or "mean".
        options: The library's options, by name: a value, or a sequence with one for each layer.
        activation: What the sweeps see in place of the model's activations.
    """

    _object_class: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        model: nn.Sequential,
        loss: str | losses.Loss,
        loss_weight: float | str,
        options: Mapping[str, object],
        *,
        activation: Activation | None = None,
    ) -> None:
        self._model = read_model(model, activation)
        self._loss = losses.resolve(loss)
        weight = arguments.loss_weight(loss_weight, self._loss.reduction == "mean")
        self._object: ObjectT = self._object_class(self._model.mlp, self._loss.name, {**options, **weight})
        self._pushed: list[object] = []
        groups = []
        for linear, kept in zip(self._model.linears, self._object.layer_options(), strict=True):
            parameters = [p for p in (linear.weight, linear.bias) if p is not None]
            groups.append(
                {"params": parameters, **{name: _to_python(name, value) for name, value in kept.items()}}
            )
        self._option_names = list(self._object.layer_options()[0])
        self._options_of = itemgetter(*self._option_names)
        super().__init__(groups, defaults={})
        self._pushed = [value for group in self.param_groups for value in self._options_of(group)]

    def _push(self) -> ObjectT:
        """The library's object, once it knows what the param groups hold, which anyone may have changed."""
        now = [value for group in self.param_groups for value in self._options_of(group)]
        if not all(map(is_, now, self._pushed)):  # 1 and True are equal
            rows = [self._options_of(group) for group in self.param_groups]
            self._object.set_layer_options([dict(zip(self._option_names, row, strict=True)) for row in rows])
            self._pushed = now
        return self._object

    def set_observer(self, observer: Callable[[str, int], object] | None) -> None:
        """Have a function called after each block of every sweep, to watch a sweep or to end it.

        Args:
            observer: Called with the block's name, as the class's text writes it, and the number of its
                Linear, from 1. What it raises ends the sweep, which then has changed nothing. None: nobody
                watches.
        """
        self._object.set_observer(observer)

    def objective(self) -> float:
        """The objective at the current point, accumulated in float64.

        Raises:
            ValueError: There is no data yet.
        """
        return self._push().objective()

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state: options, and bound data with their split variables, as copies.

        Loaded into an optimizer of the same kind over a model with the same parameters, it continues bit for
        bit.
        """
        state = super().state_dict()
        groups = [{name: _to_plain(value) for name, value in group.items()} for group in state["param_groups"]]
        return {**state, "param_groups": groups, "torchbcd": self._push().state_dict()["torchbcd"]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned, options included.

        Raises:
            ValueError: The state is not that of such an optimizer, or does not fit the model.
        """
        if "torchbcd" not in state_dict:
            raise ValueError(
                f"state_dict must be one of torchbcd.{type(self).__name__} (got one without an entry 'torchbcd')"
            )
        groups = [
            {name: _to_python(name, value) for name, value in group.items()}
            for group in state_dict["param_groups"]
        ]
        before = super().state_dict()
        super().load_state_dict({"state": {}, "param_groups": groups})
        try:
            self._object.load_state_dict(
                {
                    "param_groups": [
                        dict(zip(self._option_names, self._options_of(g), strict=True)) for g in groups
                    ],
                    "torchbcd": state_dict["torchbcd"],
                }
            )
        except BaseException:
            super().load_state_dict(before)
            raise
        self._pushed = [value for group in self.param_groups for value in self._options_of(group)]

    def script_object(self) -> Any:
        """This optimizer as a TorchScript object, ``torch.classes.torchbcd.<name>``.

        It shares the model's parameters, starts from copies of the options and of the state, and can be an
        attribute of a scripted module, which is saved with it and runs without Python.

        Raises:
            ValueError: An option is a function of one's own, which TorchScript cannot hold.

        Example:
            >>> import torch, torchbcd
            >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
            >>> script = torchbcd.BCD(model, alpha=0.1).script_object()
            >>> script.bind(torch.randn(32, 4), torch.randint(3, (32,)))
            >>> script.step()
            >>> script.sweeps()
            1
        """
        own = self._push().state_dict()["torchbcd"]
        options = {
            name: [x for group in self.param_groups for x in _numbers(name, group[name])]
            for name in self._option_names
        }
        names = {name: value for name, value in own["options"].items() if isinstance(value, str)}
        options |= {name: _numbers(name, value) for name, value in own["options"].items() if name not in names}
        script = getattr(torch.classes.torchbcd, own["optimizer"])(
            [linear.weight for linear in self._model.linears],
            [linear.bias for linear in self._model.linears],
            own["activations"],
            self._loss.name,
            options,
            self._model.flatten,
            names,
        )
        script.load_state((own["tensors"], own["numbers"]))
        return script

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refused once the optimizer is built: the groups are the model's Linear modules.

        Raises:
            ValueError: Always, after construction.
        """
        if len(self.param_groups) >= len(self._model.linears):
            raise ValueError(
                f"the param groups of {type(self).__name__} are the model's Linear modules; add none"
            )
        super().add_param_group(param_group)
