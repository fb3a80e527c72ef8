"""Operations of several networks side by side: what a stack makes of a network's modules.

Layers that know nothing of channels, such as pools, take those of all networks as they are. A
module of an unknown type is called for each network alone, next to stacked ones.

Legend: n images, s stacked networks, c channels of one of them, sc the channels of all, h height,
w width.
"""

import copy
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from search_core.convolutions import FactorizedReduce
from search_core.layers import ACTIVATIONS, GroupNorm
from search_core.stacking.layers import (
    StackedConv,
    StackedGroupNorm,
    StackedNorm,
    joined,
    of_all,
    scaled,
)


def stack(members: Sequence[nn.Module]) -> nn.Module:
    """One module in the place of several, which were made alike.

    Args:
        members: The same layer, or operation, of every network.

    Returns:
        A module from x_nschw [n, s * c, h, w] to a tensor of the same layout.
    """
    first = members[0]
    if isinstance(first, nn.Sequential) and type(first).forward is nn.Sequential.forward:
        return StackedSequential(members)
    if type(first) in _STATELESS:
        return copy.copy(first)
    make = _STACKED.get(type(first))
    if make is not None and _has_a_stacked_form(first):
        return make(members)
    return EachAlone(members)


def operation(members: Sequence[nn.Module]) -> "Operation":
    """`stack`, as an operation of a mixture."""
    stacked = stack(members)
    if isinstance(stacked, Operation):
        return stacked
    return Stateless(stacked) if type(stacked) in _STATELESS else EachAlone(members)


class Operation(nn.Module):
    """A stacked operation whose first layer may be shared, and whose result may be scaled."""

    def opening(self) -> nn.Module | None:
        """The first layer, if it has no state: one call serves all who read the same state."""
        raise NotImplementedError

    def after_opening(self, x: Tensor, scale_sc: Tensor | None) -> Tensor:
        """The other layers.

        Args:
            x: What the opening gave, or the state itself where there is none; [n, s * c, h, w].
            scale_sc: What each channel of the result is multiplied by; None for 1.
        """
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """The whole operation, unscaled."""
        opening = self.opening()
        return self.after_opening(x if opening is None else opening(x), None)


class Stateless(Operation):
    """A layer that is an operation by itself.

    Args:
        layer: The layer.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def opening(self) -> nn.Module:
        """See `Operation`."""
        return self.layer

    def after_opening(self, x: Tensor, scale_sc: Tensor | None) -> Tensor:
        """See `Operation`."""
        return scaled(x, scale_sc)


class StackedSequential(nn.Sequential, Operation):
    """Layers one after the other."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        for name, _ in members[0].named_children():
            self.add_module(name, stack([member.get_submodule(name) for member in members]))

    def opening(self) -> nn.Module | None:
        """See `Operation`."""
        return self[0] if len(self) and type(self[0]) in _STATELESS else None

    def after_opening(self, x: Tensor, scale_sc: Tensor | None) -> Tensor:
        """See `Operation`."""
        layers = list(self)[0 if self.opening() is None else 1 :]
        if layers and scale_sc is not None and isinstance(layers[-1], StackedNorm):
            for layer in layers[:-1]:
                x = layer(x)
            return layers[-1].scaled(x, scale_sc)
        for layer in layers:
            x = layer(x)
        return scaled(x, scale_sc)

    forward = Operation.forward


class StackedFactorizedReduce(Operation):
    """See `FactorizedReduce`, whose halves are joined network by network."""

    def __init__(self, members: Sequence[FactorizedReduce]) -> None:
        super().__init__()
        self.num_stacked = len(members)
        self.relu = nn.ReLU()
        self.even = StackedConv([member.even for member in members])
        self.odd = StackedConv([member.odd for member in members])
        self.norm = StackedNorm([member.norm for member in members])

    def opening(self) -> nn.Module:
        """See `Operation`."""
        return self.relu

    def after_opening(self, x: Tensor, scale_sc: Tensor | None) -> Tensor:
        """See `Operation`."""
        height, width = x.shape[-2:]
        shifted = functional.pad(x, (-1, width % 2, -1, height % 2))
        halves = joined([self.even(x), self.odd(shifted)], self.num_stacked)
        result: Tensor
        result = self.norm(halves) if scale_sc is None else self.norm.scaled(halves, scale_sc)
        return result


class EachAlone(Operation):
    """A module of an unknown type: called for each network on its own channels.

    Args:
        members: The modules. They are left alone: a copy of the first computes for all.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.num_stacked = len(members)
        # Registered under no name of its own, so that parameters are named like a member's.
        template = copy.deepcopy(members[0])
        for name, child in template.named_children():
            self.add_module(name, child)
        self._template = (template,)
        for path, module in template.named_modules():
            alike = [member.get_submodule(path) for member in members]
            for name in list(module._parameters):
                values = [each._parameters[name] for each in alike]
                if values[0] is not None:
                    stacked = nn.Parameter(of_all([v for v in values if v is not None]))
                    module._parameters[name] = stacked
                    if not path:
                        self._parameters[name] = stacked
            for name in list(module._buffers):
                buffers = [each._buffers[name] for each in alike]
                if buffers[0] is not None:
                    together = of_all([b for b in buffers if b is not None])
                    module._buffers[name] = together
                    if not path:
                        self._buffers[name] = together

    @property
    def template(self) -> nn.Module:
        """The module that computes."""
        return self._template[0]

    def train(self, mode: bool = True) -> "EachAlone":
        """Sets the mode of the module that computes."""
        super().train(mode)
        self.template.train(mode)
        return self

    def opening(self) -> None:
        """None: nothing is known of its layers."""
        return

    def after_opening(self, x: Tensor, scale_sc: Tensor | None) -> Tensor:
        """See `Operation`."""
        state = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        parts = [
            functional_call(
                self.template, {name: value[index] for name, value in state.items()}, (part,)
            )
            for index, part in enumerate(x.chunk(self.num_stacked, dim=1))
        ]
        return scaled(torch.cat(parts, dim=1), scale_sc)


class SharedOpenings:
    """What stateless first layers give, computed once for each state."""

    def __init__(self, state: Tensor) -> None:
        self._state = state
        self._known: dict[Hashable, Tensor] = {}

    def __call__(self, operation: Operation, scale_sc: Tensor) -> Tensor:
        """The operation on the state, each channel times its factor."""
        opening = operation.opening()
        if opening is None:
            return operation.after_opening(self._state, scale_sc)
        key = _settings(opening)
        if key not in self._known:
            self._known[key] = opening(self._state)
        return operation.after_opening(self._known[key], scale_sc)


def set_recording(network: nn.Module, records: bool) -> None:
    """Sets whether passes in training mode change running statistics."""
    for module in network.modules():
        if isinstance(module, StackedNorm):
            module.records = records
        elif isinstance(module, EachAlone):
            for inner in module.template.modules():
                if isinstance(inner, _BatchNorm):
                    inner.track_running_stats = records


def _settings(layer: nn.Module) -> Hashable:
    values = vars(layer).items()
    return type(layer), tuple(
        (name, value) for name, value in values if name[0] != "_" and name != "training"
    )


def _has_a_stacked_form(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layer.padding_mode == "zeros"
    if isinstance(layer, nn.BatchNorm2d):
        return layer.momentum is not None and layer.track_running_stats
    return not isinstance(layer, nn.GroupNorm) or layer.affine


_STATELESS: Final = frozenset({*ACTIVATIONS.values(), nn.Identity, nn.MaxPool2d, nn.AvgPool2d})
"""Layers that know nothing of channels, and so take those of all networks as they are."""

_STACKED: Final[dict[type[nn.Module], Callable[[Any], nn.Module]]] = {
    nn.Conv2d: StackedConv,
    nn.BatchNorm2d: StackedNorm,
    nn.GroupNorm: StackedGroupNorm,
    GroupNorm: StackedGroupNorm,
    FactorizedReduce: StackedFactorizedReduce,
}
