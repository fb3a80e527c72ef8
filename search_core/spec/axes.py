"""The axes of a HyperCuboid: hyperparameters with discrete choices. Free of torch.

`channels` and `operation` are what every cuboid has: how wide the states are and what joins two of
them. Every other axis is one registered class that varies the layers of an operation. A new axis is
one more such class: validation, the cuboid's size, the supernet, derivation, metrics and pictures
follow from it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Final, get_args

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from search_core.spec.layers import (
    Activation,
    ActivationKind,
    Convolution,
    Layer,
    Layers,
    Normalisation,
    NormalisationKind,
    Pool,
)
from search_core.spec.operations import OPERATIONS

Choice = int | float | str
"""One value of an axis."""


def _scalar(value: Any) -> Any:
    """Refuses what no axis takes in one sentence, and not once for each type that it might be."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise PydanticCustomError("axis_choice", "Input should be a number or a string")
    return value


GivenChoice = Annotated[Choice, BeforeValidator(_scalar)]
"""One value of an axis as a spec or a genotype gives it, still to be checked by the axis."""

CHANNELS: Final = "channels"
OPERATION: Final = "operation"

_LARGEST_CHANNELS = 4096
_LARGEST_KERNEL = 15
_LARGEST_DILATION = 8
_LARGEST_MULTIPLIER = 16


class Axis(ABC):
    """One hyperparameter.

    Attributes:
        name: What a spec calls it.
        default: Its choices in a space that does not name it.
    """

    name: ClassVar[str]
    default: ClassVar[tuple[Choice, ...]]

    @abstractmethod
    def check(self, choice: Choice) -> Choice:
        """Checks one choice.

        Args:
            choice: What a spec or a genotype says.

        Returns:
            The choice in the one form that is stored, such as 4 for 4.0.

        Raises:
            ValueError: It is none; the message says what is.
        """


class LayerAxis(Axis):
    """A hyperparameter of the operations themselves. Its default is a single choice."""

    @abstractmethod
    def apply(self, layers: Layers, choice: Choice) -> Layers:
        """Varies an operation.

        Args:
            layers: The operation so far.
            choice: A checked choice.

        Returns:
            The layers with that choice; the same ones where the operation has no such
            hyperparameter, so that the choices are not told apart for it.
        """


AXES: dict[str, Axis] = {}
"""Every registered axis, in the order in which the choices of an operation are counted."""


def register(axis: type[Axis]) -> type[Axis]:
    """Registers an axis under its name.

    Args:
        axis: The class.

    Returns:
        The class as it is.
    """
    assert axis.name not in AXES, f"axis {axis.name} is registered twice"
    AXES[axis.name] = axis()
    return axis


def layer_axes() -> dict[str, LayerAxis]:
    """The registered axes that vary an operation's layers."""
    return {name: axis for name, axis in AXES.items() if isinstance(axis, LayerAxis)}


def layers(
    operation: str,
    in_channels: int,
    out_channels: int,
    stride: int,
    settings: Mapping[str, Choice],
) -> Layers:
    """What an operation is made of.

    Args:
        operation: A registered operation.
        in_channels: Channels that come in.
        out_channels: Channels that go out.
        stride: 1 or 2.
        settings: Checked choices on layer axes; an axis that is left out has its default.

    Returns:
        The layers.
    """
    made = OPERATIONS[operation](in_channels, out_channels, stride)
    for name, axis in layer_axes().items():
        made = axis.apply(made, settings.get(name, axis.default[0]))
    return made


def without_idle(
    operation: str,
    in_channels: int,
    out_channels: int,
    strides: Sequence[int],
    settings: Mapping[str, Choice],
) -> dict[str, Choice]:
    """Leaves out the settings without which an operation is the same.

    Args:
        operation: A registered operation.
        in_channels: Channels that come in.
        out_channels: Channels that go out.
        strides: It has to be the same at all of these.
        settings: Checked choices on layer axes.

    Returns:
        The others, in the order of the registry.
    """

    def made(some: Mapping[str, Choice]) -> list[Layers]:
        return [layers(operation, in_channels, out_channels, stride, some) for stride in strides]

    full = made(settings)
    kept = {name: settings[name] for name in layer_axes() if name in settings}
    for name in tuple(kept):
        fewer = {other: choice for other, choice in kept.items() if other != name}
        if made(fewer) == full:
            kept = fewer
    return kept


@register
class Channels(Axis):
    """How many channels a state has: the axis of an operation's input and of its output."""

    name = CHANNELS
    default = (32, 64, 128, 256)

    def check(self, choice: Choice) -> Choice:
        """A whole number of channels."""
        return _integer(choice, self.name, 1, _LARGEST_CHANNELS)


@register
class Operations(Axis):
    """What is done between two states."""

    name = OPERATION
    default = ("sharp_sep_conv", "resizable_pool")

    def check(self, choice: Choice) -> Choice:
        """A registered operation's name."""
        return _one_of(choice, "operation", tuple(OPERATIONS))


@register
class KernelSize(LayerAxis):
    """Side of every window larger than a pixel: of convolutions and of pools."""

    name = "kernel_size"
    default = (3,)

    def check(self, choice: Choice) -> Choice:
        """An odd number of pixels."""
        size = _integer(choice, self.name, 1, _LARGEST_KERNEL)
        if size % 2 == 0:
            raise ValueError(f"a kernel_size of {size}: it must be odd, to have a middle")
        return size

    def apply(self, layers: Layers, choice: Choice) -> Layers:
        """Sets the kernels."""
        size = int(choice)
        return tuple(
            replace(layer, kernel_size=size)
            if isinstance(layer, Convolution | Pool) and layer.kernel_size > 1
            else layer
            for layer in layers
        )


@register
class Dilation(LayerAxis):
    """Pixels between the taps of an operation's first spatial convolution."""

    name = "dilation"
    default = (1,)

    def check(self, choice: Choice) -> Choice:
        """A whole number of pixels."""
        return _integer(choice, self.name, 1, _LARGEST_DILATION)

    def apply(self, layers: Layers, choice: Choice) -> Layers:
        """Sets the dilation, as in the dilated primitives of sharpDARTS."""
        for index, layer in enumerate(layers):
            if isinstance(layer, Convolution) and layer.kernel_size > 1:
                dilated = replace(layer, dilation=int(choice))
                return (*layers[:index], dilated, *layers[index + 1 :])
        return layers


@register
class MidMultiplier(LayerAxis):
    """Widens (flood) or narrows (choke) the channels between an operation's two stages."""

    name = "mid_multiplier"
    default = (1,)

    def check(self, choice: Choice) -> Choice:
        """A positive factor."""
        factor = _number(choice, self.name)
        if not 0 < factor <= _LARGEST_MULTIPLIER:
            raise ValueError(
                f"a {self.name} of {factor}: it must be above 0 and at most {_LARGEST_MULTIPLIER}"
            )
        return int(factor) if factor == int(factor) else factor

    def apply(self, layers: Layers, choice: Choice) -> Layers:
        """Multiplies the channels between two convolutions over all channels."""
        full = [
            index
            for index, layer in enumerate(layers)
            if isinstance(layer, Convolution) and not layer.depthwise
        ]
        if len(full) < 2:  # one stage has no middle
            return layers
        first, last = full[0], full[-1]
        varied = list(layers)
        for index in range(first, last + 1):
            varied[index] = _with_middle(
                layers[index], float(choice), starts=index == first, ends=index == last
            )
        return tuple(varied)


@register
class ActivationAxis(LayerAxis):
    """The function between linear layers."""

    name = "activation"
    default = ("relu",)

    def check(self, choice: Choice) -> Choice:
        """A known function's name."""
        return _one_of(choice, self.name, get_args(ActivationKind))

    def apply(self, layers: Layers, choice: Choice) -> Layers:
        """Sets the function."""
        return tuple(
            Activation(choice) if isinstance(layer, Activation) else layer  # type: ignore[arg-type]
            for layer in layers
        )


@register
class NormalisationAxis(LayerAxis):
    """What is normalised after a convolution."""

    name = "normalisation"
    default = ("batch",)

    def check(self, choice: Choice) -> Choice:
        """A known normalisation's name."""
        return _one_of(choice, self.name, get_args(NormalisationKind))

    def apply(self, layers: Layers, choice: Choice) -> Layers:
        """Sets the normalisation."""
        return tuple(
            replace(layer, kind=choice)  # type: ignore[arg-type]
            if isinstance(layer, Normalisation)
            else layer
            for layer in layers
        )


def _with_middle(layer: Layer, factor: float, *, starts: bool, ends: bool) -> Layer:
    """A layer of an operation's middle with as many times the channels as the factor says."""

    def scaled(channels: int) -> int:
        return max(1, round(channels * factor))

    if isinstance(layer, Normalisation):
        return replace(layer, channels=scaled(layer.channels))
    if isinstance(layer, Convolution):
        return replace(
            layer,
            in_channels=layer.in_channels if starts else scaled(layer.in_channels),
            out_channels=layer.out_channels if ends else scaled(layer.out_channels),
        )
    return layer


def _integer(choice: Choice, name: str, least: int, most: int) -> int:
    number = _number(choice, name)
    if number != int(number) or not least <= number <= most:
        raise ValueError(f"{choice!r} on the axis {name}: a whole number from {least} to {most}")
    return int(number)


def _number(choice: Choice, name: str) -> float:
    if isinstance(choice, str):
        raise ValueError(f"{choice!r} on the axis {name}: it must be a number")  # noqa: TRY004
    return choice


def _one_of(choice: Choice, name: str, known: tuple[str, ...]) -> str:
    if choice not in known:
        raise ValueError(f"unknown {name} {choice!r}; choose from: {', '.join(known)}")
    return str(choice)
