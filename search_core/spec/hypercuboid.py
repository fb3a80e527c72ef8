"""The HyperCuboid: a grid of hyperparameters, searched by one differentiable run.

Source: arXiv 1903.09900, section 3.3. Free of torch.
"""

from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from itertools import product
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from search_core.spec.axes import (
    AXES,
    CHANNELS,
    OPERATION,
    Choice,
    GivenChoice,
    layer_axes,
    layers,
    without_idle,
)
from search_core.spec.base import SpecModel, field_error
from search_core.spec.layers import Layers

_LARGEST_POSITION = 8192
"""Operations of one (level, stride); a typing mistake makes millions."""


AxisChoices = Annotated[tuple[GivenChoice, ...], Field(min_length=1, max_length=64, strict=False)]


class Position(NamedTuple):
    """One place in a path: every network takes one operation there.

    Attributes:
        level: From 0.
        stride: Of the operations there.
    """

    level: int
    stride: int


class Candidate(NamedTuple):
    """What may be done between two states of given channels.

    Attributes:
        operation: The operation's name.
        settings: Choices on layer axes, by name; only those that make it another operation than
            the axis's default does.
    """

    operation: str
    settings: tuple[tuple[str, Choice], ...] = ()


class CuboidOperation(NamedTuple):
    """One cell of the cuboid at a position: it has one weight.

    Attributes:
        in_channels: Channels of the state that it reads.
        out_channels: Channels of the state that it adds to.
        candidate: What it does.
    """

    in_channels: int
    out_channels: int
    candidate: Candidate


class HyperCuboidSpace(SpecModel):
    """A graph of states, one for each number of channels at each position, joined by operations.

    A network is a path: a stem, one operation at each position, and a head. The default is the
    paper's instance with 67,108,864 paths.
    """

    kind: Literal["hypercuboid"]
    axes: dict[str, AxisChoices] = Field(default_factory=dict)
    """The choices on each registered axis. An axis that is left out has its default: `channels` 32,
    64, 128, 256; `operation` sharp_sep_conv, resizable_pool; `kernel_size` 3; `dilation` 1;
    `mid_multiplier` 1; `activation` relu; `normalisation` batch. The choices of one operation are
    those that change it: a pool has no activation to choose."""
    levels: int = Field(default=4, ge=1, le=16)
    """How often the positions of a level repeat."""
    strides: tuple[Literal[1, 2], ...] = Field(
        default=(1, 2), min_length=1, max_length=8, strict=False
    )
    """The positions of a level: the stride of each."""
    final_channels: int = Field(default=768, ge=1, le=8192)
    """Channels that the head's SharpSepConv makes, which are then pooled and classified."""

    skip_below: float = Field(default=0.0, ge=0, lt=1)
    """Do not compute operations whose multiplier is below this, except the heaviest into each
    state. Faster, and no longer exact: what is skipped adds nothing and learns nothing. 0 computes
    all."""

    @field_validator("axes")
    @classmethod
    def _check_axes(cls, value: dict[str, tuple[Choice, ...]]) -> dict[str, tuple[Choice, ...]]:
        return {name: _checked(name, choices) for name, choices in value.items()}

    @model_validator(mode="after")
    def _check_size(self) -> "HyperCuboidSpace":
        # Counted before anything is listed: the product of the axes, without what collapses.
        most = len(self.channels) ** 2 * len(self.choices(OPERATION))
        for name in layer_axes():
            most *= len(self.choices(name))
        if most > _LARGEST_POSITION:
            raise field_error(
                f"{most:,} operations at each of {len(self.positions)} positions; at most "
                f"{_LARGEST_POSITION:,} are searched: leave out choices",
                "axes",
            )
        return self

    def choices(self, axis: str) -> tuple[Choice, ...]:
        """The choices on an axis, named or by default."""
        return self.axes.get(axis, AXES[axis].default)

    @property
    def channels(self) -> tuple[int, ...]:
        """The channels of the states."""
        return tuple(int(choice) for choice in self.choices(CHANNELS))

    @property
    def positions(self) -> tuple[Position, ...]:
        """Level by level, in a level by stride as listed."""
        return tuple(
            Position(level, stride) for level in range(self.levels) for stride in self.strides
        )

    @cached_property
    def operations(self) -> tuple[CuboidOperation, ...]:
        """The operations of every position: by input, by output, by candidate."""
        return tuple(
            CuboidOperation(in_channels, out_channels, candidate)
            for in_channels, out_channels in product(self.channels, repeat=2)
            for candidate in self._candidates(in_channels, out_channels)
        )

    @property
    def num_paths(self) -> int:
        """Architectures in the cuboid."""
        joins = Counter((each.in_channels, each.out_channels) for each in self.operations)
        reaching = dict.fromkeys(self.channels, 1)
        for _ in self.positions:
            reaching = {
                out: sum(reaching[given] * joins[given, out] for given in self.channels)
                for out in self.channels
            }
        return sum(reaching.values())

    @property
    def num_candidates(self) -> int | None:
        """Candidates between two states; None where it depends on their channels."""
        counts = {
            len(self._candidates(in_channels, out_channels))
            for in_channels, out_channels in product(self.channels, repeat=2)
        }
        return counts.pop() if len(counts) == 1 else None

    @property
    def searched_axes(self) -> tuple[str, ...]:
        """The axes with more than one choice, in the order of the registry."""
        return tuple(name for name in AXES if len(self.choices(name)) > 1)

    def varies(self, operation: CuboidOperation, axis: str) -> bool:
        """Whether another choice on a layer axis would make another operation of it."""
        in_channels, out_channels, (name, settings) = operation
        return any(
            axis
            in without_idle(
                name, in_channels, out_channels, (1, 2), {**dict(settings), axis: other}
            )
            for other in self.choices(axis)
        )

    def _candidates(self, in_channels: int, out_channels: int) -> tuple[Candidate, ...]:
        distinct: dict[tuple[Layers, ...], Candidate] = {}
        for operation in self.choices(OPERATION):
            for settings in self._settings():
                name = str(operation)
                made = _made(name, in_channels, out_channels, settings)
                if made not in distinct:
                    kept = without_idle(name, in_channels, out_channels, (1, 2), settings)
                    distinct[made] = Candidate(name, tuple(kept.items()))
        return tuple(distinct.values())

    def _settings(self) -> Iterator[dict[str, Choice]]:
        names = tuple(layer_axes())
        for choices in product(*(self.choices(name) for name in names)):
            yield dict(zip(names, choices, strict=True))


def _made(
    operation: str, in_channels: int, out_channels: int, settings: dict[str, Choice]
) -> tuple[Layers, ...]:
    """Its layers at either stride, so that all positions have the same candidates."""
    return tuple(
        layers(operation, in_channels, out_channels, stride, settings) for stride in (1, 2)
    )


def _checked(name: str, choices: tuple[Choice, ...]) -> tuple[Choice, ...]:
    if name not in AXES:
        raise field_error(f"unknown axis {name!r}; registered are: {', '.join(AXES)}", name)
    checked: list[Choice] = []
    for index, choice in enumerate(choices):
        try:
            value = AXES[name].check(choice)
        except ValueError as error:
            raise field_error(str(error), name, index) from None
        if value in checked:
            raise field_error(f"{value!r} repeats on the axis {name}", name, index)
        checked.append(value)
    return tuple(checked)
