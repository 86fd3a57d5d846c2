"""What the optimizers of this package share: reading a model, param groups, data, state, the observer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import nan
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from torchbcd import _C, arguments, losses, regularizers
from torchbcd.convert import Mlp, read_mlp

__all__ = ["Closure", "SplitOptimizer"]

Closure: TypeAlias = Callable[[], tuple[Tensor, Tensor]]


def _convert_regularizers(group: dict[str, Any], convert: Callable[[Any], object]) -> dict[str, Any]:
    return {key: convert(value) if key.endswith("_regularizer") else value for key, value in group.items()}


def _numbers(name: str, value: object) -> list[float]:
    """An option of a param group as the TorchScript classes take it: NaN for None, four for a regulariser."""
    if name.endswith("_regularizer"):
        return list(arguments.terms(name, value))
    return [nan if value is None else arguments.number(name, value)]


def _activation_text(name: str, parameters: Sequence[float]) -> str:
    return f"{name}({', '.join(map(repr, parameters))})" if parameters else name


EngineT = TypeVar("EngineT", bound="_C._Trainer")


class SplitOptimizer(torch.optim.Optimizer, Generic[EngineT]):
    """An optimizer whose steps are sweeps of a C++ trainer over the layers of an MLP.

    Args:
        model: The MLP.
        loss: Name or object of :mod:`torchbcd.losses`.
        loss_weight: A number > 0, or "mean".
        options: What the param groups carry beside their parameters: for each name a value for each Linear.
        defaults: What the param groups carry alike.
    """

    _engine_class: ClassVar[Callable[..., Any]]
    _script_class: ClassVar[str]

    def __init__(
        self,
        model: nn.Sequential,
        loss: str | losses.Loss,
        loss_weight: float | str,
        options: Callable[[int], Mapping[str, Sequence[object]]],
        defaults: dict[str, Any] | None = None,
    ) -> None:
        mlp = read_mlp(model)
        self._mlp = mlp
        self._loss = losses.resolve(loss)
        self._depth = len(mlp.layers)
        columns = options(self._depth)
        self._option_names = [*columns, *(defaults or {})]
        groups = [
            {
                "params": [p for p in (layer.linear.weight, layer.linear.bias) if p is not None],
                **{name: column[i] for name, column in columns.items()},
            }
            for i, layer in enumerate(mlp.layers)
        ]
        self._activations = self._training_activations(mlp)
        self._engine: EngineT = self._engine_class(
            [layer.linear.weight for layer in mlp.layers],
            [layer.linear.bias for layer in mlp.layers],
            self._activations,
            self._loss.name,
        )
        weight = 1.0 if loss_weight == "mean" else arguments.number("loss_weight", loss_weight)
        self._loss_weight = (weight, loss_weight == "mean" or self._loss.reduction == "mean")
        self._engine.set_loss_weight(*self._loss_weight)
        super().__init__(groups, defaults=defaults or {})

    def set_observer(self, observer: Callable[[str, int], object] | None) -> None:
        """Have a function called after each block of every sweep, to watch a sweep or to end it.

        Args:
            observer: Called with the block's name, as the class's text writes it, and the index of its
                Linear, from 0. What it raises ends the sweep, which then has changed nothing. None: nobody
                watches.
        """
        self._engine.set_observer(observer)

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state: penalties, and bound data with their split variables, as copies.

        Loaded into an optimizer of the same kind over a model with the same parameters, it continues bit for
        bit.
        """
        state = super().state_dict()
        groups = [_convert_regularizers(group, regularizers.to_plain) for group in state["param_groups"]]
        return {**state, "param_groups": groups, "engine": self._engine.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned.

        Raises:
            ValueError: The state does not fit the model.
        """
        state = dict(state_dict)
        engine = state.pop("engine", None)
        if engine is None:
            name = type(self).__name__
            raise ValueError(f"state_dict must be one of torchbcd.{name} (got one without 'engine')")
        groups = [_convert_regularizers(group, regularizers.from_plain) for group in state["param_groups"]]
        before = super().state_dict()
        super().load_state_dict({**state, "param_groups": groups})
        try:
            self._apply_options()
            self._engine.load_state(engine)
        except BaseException:
            super().load_state_dict(before)
            self._apply_options()
            raise

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
        options = dict(self._script_options())
        for name in self._option_names:
            values = [group[name] for group in self.param_groups]
            options[name] = [number for value in values for number in _numbers(name, value)]
        weight, mean = self._loss_weight
        options |= {"loss_weight": [weight], "mean_loss": [float(mean)]}
        linears = [layer.linear for layer in self._mlp.layers]
        script = getattr(torch.classes.torchbcd, type(self)._script_class)(
            [linear.weight for linear in linears],
            [linear.bias for linear in linears],
            [_activation_text(*activation) for activation in self._activations],
            self._loss.name,
            options,
            self._mlp.flatten,
        )
        script.load_state(self._engine.state())
        return script

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refused once the optimizer is built: the groups are the model's Linear modules.

        Raises:
            ValueError: Always, after construction.
        """
        if len(self.param_groups) >= self._depth:
            raise ValueError(
                f"the param groups of {type(self).__name__} are the model's Linear modules; add none"
            )
        super().add_param_group(param_group)

    def _training_activations(self, mlp: Mlp) -> tuple[tuple[str, tuple[float, ...]], ...]:
        """The activations that the sweeps see: the model's own."""
        return tuple((layer.activation.name, layer.activation.parameters) for layer in mlp.layers)

    def _inputs(self, x: object) -> Tensor:
        tensor = arguments.tensor("x", x)
        return tensor.flatten(1) if self._mlp.flatten and tensor.dim() > 1 else tensor

    def _script_options(self) -> dict[str, list[float]]:
        """What :meth:`script_object` is told beside the options of the param groups."""
        return {}

    def _apply_options(self) -> None:
        """Tell the engine what the param groups hold, which anyone may have changed."""
        raise NotImplementedError

    @staticmethod
    def _batch(inputs: Tensor | Closure | None, targets: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """What a step is given: a closure's result, or inputs and targets, or neither."""
        if callable(inputs) and not isinstance(inputs, Tensor):
            if targets is not None:
                raise ValueError("step(closure) takes its targets from the closure (got targets too)")
            inputs, targets = inputs()
        if (inputs is None) != (targets is None):
            raise ValueError("step needs both inputs and targets, or neither")
        return inputs, targets
