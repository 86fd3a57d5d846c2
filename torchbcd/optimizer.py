"""What the optimizers share: the library's object behind param groups, state_dict, the observer, TorchScript."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from operator import is_, itemgetter
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from torchbcd import _C, arguments, distributed, losses
from torchbcd.convert import Activation, LayerParameters, read_model
from torchbcd.regularizers import Monotone, Regularizer
from torchbcd.terms import from_numbers, from_saved, to_saved

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["SweepOptimizer"]

ObjectT = TypeVar("ObjectT", bound="_C._Optimizer")


def _to_python(name: str, value: Any) -> Any:
    """An option of the library's for a param group: a regulariser for its numbers."""
    return from_numbers(value) if name.endswith("_regularizer") and value is not None else value


def _to_plain(value: Any) -> Any:
    """The reverse: what a state_dict holds."""
    return to_saved(value) if isinstance(value, Regularizer) else value


def _from_plain(name: str, value: Any, own: Any) -> Any:
    """What an option is again, of a layer where it is now ``own``."""
    return from_saved(value, own) if name.endswith("_regularizer") and value is not None else value


def _own_terms(groups: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """By option, the layers' regularisers with a term of one's own, which no state holds; None for others."""
    found = {}
    for name in ("weight_regularizer", "state_regularizer"):
        terms = [group.get(name) for group in groups]
        own = [each if getattr(each, "proximal", None) else None for each in terms]
        if any(own):
            found[name] = own
    return found


def _same(listed: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return len(listed) == len(others) and all(map(is_, listed, others))


def _of_maps(parameters: Sequence[LayerParameters]) -> list[list[Tensor | None]]:
    """Scales, shifts and slopes as the library takes them: none where no layer has any."""
    *_, scales, shifts, slopes = map(list, zip(*parameters, strict=True))
    norms = any(p is not None for p in (*scales, *shifts))
    return [
        scales if norms else [],
        shifts if norms else [],
        slopes if any(p is not None for p in slopes) else [],
    ]


class _Group(dict[str, Any]):
    """A param group, which says why it has no learning rate, rather than KeyError, to those who schedule one."""

    _REASON = (
        "this optimizer has no learning rate for a scheduler to drive: its steps are minimisers of blocks; "
        "torchbcd.RelaxedBCD has one. Other options of the param groups can be set between steps"
    )

    def __missing__(self, key: str) -> Any:
        if key == "lr":
            raise ValueError(self._REASON)
        raise KeyError(key)

    def __setitem__(self, key: str, value: Any) -> None:
        if key in ("lr", "initial_lr") and "lr" not in self:
            raise ValueError(self._REASON)
        super().__setitem__(key, value)


class SweepOptimizer(torch.optim.Optimizer, Generic[ObjectT]):
    """An optimizer whose steps are sweeps of an object of the library over the layers of an MLP.

    The object holds options, data and state. ``param_groups``, one for each Linear, are filled from it, and what
    anyone has changed in them is told to it before each call, as are the model's parameters, wherever they are
    by then.

    ``copy.deepcopy`` and pickle give an optimizer that continues bit for bit, over the copy of the model that
    goes with it, or its own. An observer is not copied.

    Args:
        model: The MLP.
        loss: Name or object of :mod:`torchbcd.losses`.
        loss_weight: A number > 0, or "mean".
        options: The library's options, by name: a value, or a sequence with one for each layer.
        process_group: Processes that have the rows of the data between them.
        activation: What the sweeps see in place of the model's activations.
    """

    _object_class: ClassVar[Callable[..., Any]]
    # What the sweeps see in place of the model's activations.
    _training_activation: Activation | None = None
    # Options that schedulers look for among the defaults, and attributes that a copy has too.
    _scheduled: ClassVar[tuple[str, ...]] = ()
    _copied: ClassVar[tuple[str, ...]] = ()
    _process_group: ProcessGroup | None = None  # of a copy, too, which there is none of with one

    def __init__(
        self,
        model: nn.Sequential,
        loss: str | losses.Loss,
        loss_weight: float | str,
        options: Mapping[str, object],
        process_group: ProcessGroup | None = None,
    ) -> None:
        self._process_group = process_group
        with distributed.same_everywhere(process_group) as described:
            loss = losses.resolve(loss)
            weight = arguments.loss_weight(loss_weight, loss.reduction == "mean")
            self._build(model, loss, {**options, **weight})
            if process_group is not None:
                for name in _own_terms(self.param_groups):
                    raise ValueError(
                        f"a process_group needs {name}s that are the same in every process, which nothing tells "
                        "of one's own"
                    )
                described.update(distributed.description(self))
        if process_group is not None:
            self._object.set_process_group(process_group.group_name, process_group.rank())

    def _build(self, model: nn.Sequential, loss: losses.Loss, options: Mapping[str, object]) -> None:
        self._model = read_model(model, self._training_activation)
        self._loss = loss
        plain = {name: arguments.plain(value) for name, value in options.items()}
        if isinstance(signs := plain.get("weight_regularizer"), Monotone):
            plain["weight_regularizer"] = signs.of_layers(len(self._model.linears))
        self._object: ObjectT = self._object_class(self._model.read(), str(loss), plain)
        self._pushed: list[object] = []
        self._has_tensors = False
        self._parameters: list[list[Tensor]] = []
        kept = self._object.layer_options()
        self._option_names = list(kept[0])
        self._options_of = itemgetter(*self._option_names)
        groups = []
        for parameters, values in zip(self._model.parameters(), kept, strict=True):
            self._parameters.append(parameters.given)
            own = {name: _to_python(name, value) for name, value in values.items()}
            groups.append(_Group({"params": list(self._parameters[-1]), **own}))
        super().__init__(groups, defaults={name: kept[0][name] for name in self._scheduled})
        self._pushed = [value for group in self.param_groups for value in self._options_of(group)]

    def _targets(self, name: str, y: object) -> Tensor:
        """Targets as one tensor: a tuple's, one for each part of the loss, joined."""
        if isinstance(self._loss, losses.MultiOutput) and isinstance(y, tuple | list):
            return self._object.joined_targets(
                [arguments.tensor(f"{name} of part {part}", own) for part, own in enumerate(y, 1)]
            )
        return arguments.tensor(name, y)

    def _push(self) -> ObjectT:
        """The library's object, once it knows parameters and options, which anyone may have changed."""
        self._follow()
        now = [value for group in self.param_groups for value in self._options_of(group)]
        if self._has_tensors or not all(map(is_, now, self._pushed)):
            rows = [map(arguments.plain, self._options_of(group)) for group in self.param_groups]
            self._object.set_layer_options([dict(zip(self._option_names, row, strict=True)) for row in rows])
            self._pushed = now  # 1 and True are equal, hence `is` above
            self._has_tensors = any(isinstance(value, Tensor) for value in now)  # may be changed in place
        return self._object

    def _follow(self) -> None:
        """Tell the library where the model's parameters are by now."""
        parameters = self._model.parameters()
        groups = self.param_groups
        known = [p for layer in self._parameters for p in layer]
        if not (
            len(groups) == len(parameters)
            and _same([p for group in groups for p in group["params"]], known)
            and _same([p for layer in parameters for p in layer if p is not None], known)
        ):
            self._follow_groups(parameters)
        weights, biases = [p.weight for p in parameters], [p.bias for p in parameters]
        self._object.follow(weights, biases, self._model.dropout, *_of_maps(parameters))

    def _follow_groups(self, parameters: Sequence[LayerParameters]) -> None:
        """Have the param groups hold the model's parameters, unless somebody has changed the groups."""
        now = [layer.given for layer in parameters]
        groups = self.param_groups
        if len(groups) != len(now):
            raise ValueError(
                f"there must be {len(now)} param groups, one for each Linear (got {len(groups)}: some were "
                "added or removed)"
            )
        for layer, (group, known, theirs) in enumerate(zip(groups, self._parameters, now, strict=True)):
            listed = group["params"]
            if not (_same(listed, known) or _same(listed, theirs)):
                raise ValueError(
                    f"param group {layer} must hold the parameters of layer {layer + 1}; the groups were "
                    "reordered or their parameters changed"
                )
            if not _same(listed, theirs):
                group["params"] = list(theirs)
        self._parameters = now

    def __getstate__(self) -> dict[str, Any]:
        """What a copy is made of: the model, options and state."""
        self._check_all_rows("a copy")
        return {
            "model": self._model.module,
            "loss": self._loss,
            "options": self._push().scheme_options(),
            "state": self.state_dict(),
            "own": _own_terms(self.param_groups),
            **{name: getattr(self, name) for name in self._copied},
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Be the copy; or take torch's own state, which ``load_state_dict`` gives."""
        if "model" not in state:
            super().__setstate__(state)
            self.param_groups = [_Group(group) for group in self.param_groups]
            return
        for name in self._copied:
            setattr(self, name, state[name])
        self._build(state["model"], state["loss"], {**state["options"], **state["own"]})
        self.load_state_dict(state["state"])

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

    @property
    def sweeps(self) -> int:
        """Complete sweeps so far: those of a state that was loaded, or a run that was resumed, count."""
        return self._object.sweeps

    @property
    def bytes_sent(self) -> int:
        """Bytes of the tensors that the last bind or step has summed over the processes of ``process_group``.

        It is what a process gives to all-reduces; a ring of p processes sends 2 (p - 1) / p times as much. What
        has been read since, such as :meth:`objective`, is in it. 0 without a group.
        """
        return self._object.bytes_sent

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state: options, and bound data with their split variables, as copies.

        Loaded into an optimizer of the same kind over a model with the same parameters, it continues bit for
        bit.
        """
        own = self._push().state_dict()["torchbcd"]
        hooks, self._optimizer_state_dict_post_hooks = self._optimizer_state_dict_post_hooks, OrderedDict()
        try:
            state = super().state_dict()
        finally:
            self._optimizer_state_dict_post_hooks = hooks
        groups = [{name: _to_plain(value) for name, value in group.items()} for group in state["param_groups"]]
        state = {**state, "param_groups": groups, "torchbcd": own}
        for hook in hooks.values():
            changed = hook(self, state)
            state = state if changed is None else changed
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned, options included; one that it lacks takes its default.

        Raises:
            ValueError: The state is not that of such an optimizer, or does not fit the model.
        """
        if "torchbcd" not in state_dict:
            raise ValueError(
                f"state_dict must be one of torchbcd.{type(self).__name__} (got one without an entry 'torchbcd')"
            )
        self._follow()
        saved = state_dict["param_groups"]
        own = [*self.param_groups, *[{}] * len(saved)]  # of which there may be too few
        groups = [
            {name: _from_plain(name, value, mine.get(name)) for name, value in group.items()}
            for group, mine in zip(saved, own, strict=False)
        ]
        before = self.param_groups
        super().load_state_dict({**state_dict, "state": {}, "param_groups": groups})
        try:
            told = [{name: arguments.plain(g[name]) for name in self._option_names if name in g} for g in groups]
            self._object.load_state_dict({"param_groups": told, "torchbcd": state_dict["torchbcd"]})
        except BaseException:
            self.param_groups = before
            raise
        for group, kept in zip(self.param_groups, self._object.layer_options(), strict=True):
            for name in set(self._option_names) - group.keys():
                group[name] = _to_python(name, kept[name])
        self._pushed = [value for group in self.param_groups for value in self._options_of(group)]

    def script_object(self) -> Any:
        """This optimizer as a TorchScript object, ``torch.classes.torchbcd.<name>``.

        It shares the model's parameters, starts from copies of the options and of the state, and can be an
        attribute of a scripted module, which is saved with it and runs without Python. Its Dropouts stay in the
        mode that the model's are in now.

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
        self._check_all_rows("script_object")
        own = self._push().state_dict()["torchbcd"]
        options = {
            name: [x for group in self.param_groups for x in arguments.numbers(name, group[name])]
            for name in self._option_names
        }
        names = {name: value for name, value in own["options"].items() if isinstance(value, str)}
        options |= {
            name: arguments.numbers(name, value) for name, value in own["options"].items() if name not in names
        }
        parameters = self._model.parameters()
        script = getattr(torch.classes.torchbcd, own["optimizer"])(
            [p.weight for p in parameters],
            [p.bias for p in parameters],
            self._texts(own["activations"]),
            str(self._loss),
            options,
            self._model.flatten,
            names,
            self._model.skips,
            *_of_maps(parameters),
        )
        script.load_state((own["tensors"], own["numbers"]))
        return script

    def _texts(self, activations: list[str]) -> list[str]:
        """Activations as TorchScript has them, with what the Dropouts behind them do now."""
        dropout = self._model.dropout or [0.0] * len(activations)
        return [f"{text}, dropout({p!r})" if p else text for text, p in zip(activations, dropout, strict=True)]

    def _check_all_rows(self, what: str) -> None:
        if self._process_group is not None:
            raise ValueError(f"{what} needs all rows in one process (this optimizer has a process_group)")

    @contextmanager
    def _refused_by_all(self) -> Iterator[None]:
        """What the body refuses, before a bind or a step of all processes, is an error in every one of them."""
        try:
            yield
        except Exception as error:
            if self._process_group is not None:
                with suppress(ValueError):  # which the others raise
                    self._object.refuse(str(error))
            raise

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
